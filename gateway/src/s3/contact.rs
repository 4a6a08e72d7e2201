//! Whether anything may be answered at this moment.
//!
//! A gateway that was cut off from the pool's journal would serve old data for
//! ever (PROTOCOL.md 1). So the front door asks before it lets a request in,
//! and again before an answer leaves: whatever the answer was based on was
//! read before that, and no other gateway has answered anything by then. A
//! request in work may wait for the journal, and so for ever; its client is
//! told to come again as well. What it asked for may still come to be done.

use std::time::Duration;

use http::{HeaderValue, Method, Response, header};
use s3s::{Body, S3Error, S3ErrorCode};

/// What may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Everything.
    All,
    /// Reads only.
    Reads,
    /// Nothing.
    Nothing,
}

/// Knows what may be answered.
pub trait Contact: Send + Sync + 'static {
    /// What may be answered now.
    fn answers(&self) -> Answers;
}

/// After this many seconds a client tries again.
const AGAIN: HeaderValue = HeaderValue::from_static("3");

/// Whether a request of this method may be answered.
pub(super) fn check(contact: &dyn Contact, method: &Method) -> Result<(), S3Error> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match contact.answers() {
        Answers::All => Ok(()),
        Answers::Reads if reads => Ok(()),
        Answers::Reads | Answers::Nothing => Err(S3Error::with_message(
            S3ErrorCode::ServiceUnavailable,
            "The service has lost contact with its disks. Please try again.",
        )),
    }
}

/// Between two looks at contact while a request is in work.
const LOOK: Duration = Duration::from_millis(500);
/// As many looks without contact end a request's wait.
const LOOKS: u32 = 10;

/// Ends when a request of this method, which is in work, could not have been
/// answered for five seconds.
pub(super) async fn lost(contact: &dyn Contact, method: &Method) -> S3Error {
    let mut without = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        match check(contact, method) {
            Ok(()) => without = 0,
            Err(_) if without < LOOKS => without += 1,
            Err(error) => return error,
        }
    }
}

/// Says when to try again.
pub(super) fn say_again(response: &mut Response<Body>) {
    response.headers_mut().insert(header::RETRY_AFTER, AGAIN);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pass_where_only_reads_may() {
        struct Set(Answers);
        impl Contact for Set {
            fn answers(&self) -> Answers {
                self.0
            }
        }
        for (answers, method, passes) in [
            (Answers::All, Method::GET, true),
            (Answers::All, Method::PUT, true),
            (Answers::Reads, Method::GET, true),
            (Answers::Reads, Method::HEAD, true),
            (Answers::Reads, Method::PUT, false),
            (Answers::Reads, Method::POST, false),
            (Answers::Reads, Method::DELETE, false),
            (Answers::Nothing, Method::GET, false),
            (Answers::Nothing, Method::DELETE, false),
        ] {
            let passed = check(&Set(answers), &method).is_ok();
            assert_eq!(passed, passes, "{answers:?} {method}");
        }
    }
}
