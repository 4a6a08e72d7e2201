//! Someone between gateway and agent: counts, listens, and changes what
//! passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Changes a piece of one direction before it goes on.
pub type Change = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

#[derive(Default)]
pub struct Seen {
    open: AtomicUsize,
    most: AtomicUsize,
    requests: Mutex<Vec<u8>>,
}

impl Seen {
    /// Most connections at once.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Every byte that went to the agent.
    pub fn requests(&self) -> Vec<u8> {
        self.requests.lock().clone()
    }
}

/// A proxy in front of `to`.
pub async fn start(to: SocketAddr, request: Change, answer: Change) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (seen, request, answer) = (shared.clone(), request.clone(), answer.clone());
            tokio::spawn(async move {
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most.fetch_max(open, Ordering::SeqCst);
                if let Ok(far) = TcpStream::connect(to).await {
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    let record = Some(Arc::clone(&seen));
                    tokio::select! {
                        () = pass(near_read, far_write, request, record) => {}
                        () = pass(far_read, near_write, answer, None) => {}
                    }
                }
                seen.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, seen)
}

/// Leaves everything as it is.
pub fn nothing() -> Change {
    Arc::new(|_| {})
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    change: Change,
    record: Option<Arc<Seen>>,
) {
    let mut piece = vec![0; 1 << 20];
    while let Ok(len @ 1..) = from.read(&mut piece).await {
        let mut piece = piece[..len].to_vec();
        change(&mut piece);
        if let Some(seen) = &record {
            seen.requests.lock().extend_from_slice(&piece);
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
