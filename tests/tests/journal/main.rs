//! The journal under real gateways and agents: kills, lost and stopped
//! journal disks, agents that return, lost power, damaged catalogs, two
//! gateways on the same agents.

mod damage;
mod kills;
mod load;
mod losses;
mod power;
mod returns;
mod takeover;
