//! What gateways and agents take as the setting that says which lines are
//! logged, before the logs' own parser sees it.

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Whether each word that stands alone is a level. As the name of a module,
/// which it may be too, a misspelt level would silence all others.
pub fn words_are_levels(directives: &str) -> bool {
    let mut words = directives.split(',').map(str::trim).filter(|directive| {
        let plain = |c: char| c.is_ascii_alphanumeric();
        !directive.is_empty() && directive.chars().all(plain)
    });
    words.all(|word| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_a_level() {
        for taken in [
            "info",
            "WARN",
            "info,shardgate=debug",
            "shardgate::s3=trace , off",
            "[request]=debug",
            "",
        ] {
            assert!(words_are_levels(taken), "{taken:?}");
        }
        for refused in ["inof", "loud,info", "info,shardgate", "6"] {
            assert!(!words_are_levels(refused), "{refused:?}");
        }
    }
}
