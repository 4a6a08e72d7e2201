//! Reads a request's body, once: length, digests, end.
//!
//! Owns [`Intake`]. Invariant: [`Intake::finish`] is the only way to a body's
//! digests, and it succeeds only after the stream has ended by itself and
//! everything that was said of the body is true.

use bytes::Bytes;
use futures::StreamExt;

use super::digest::{BodyDigests, Digester, Expectations};
use super::error::ObjectError;
use super::metrics::ObjectMetrics;
use super::request::BodyStream;

/// See the module.
pub(super) struct Intake {
    body: BodyStream,
    digester: Digester,
    expectations: Expectations,
    most: u64,
    ended: bool,
}

impl Intake {
    /// A body of at most `most` bytes.
    ///
    /// # Errors
    /// It is declared to be longer.
    pub fn new(
        body: BodyStream,
        expectations: Expectations,
        most: u64,
    ) -> Result<Self, ObjectError> {
        if expectations.len.is_some_and(|len| len > most) {
            return Err(ObjectError::EntityTooLarge { limit_bytes: most });
        }
        Ok(Self {
            body,
            digester: Digester::new(expectations.algorithm()),
            expectations,
            most,
            ended: false,
        })
    }

    /// What its length is said to be.
    pub fn declared(&self) -> Option<u64> {
        self.expectations.len
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.digester.len()
    }

    /// The next bytes, never empty; `None` at the end. May be dropped and
    /// called again.
    pub async fn frame(&mut self) -> Result<Option<Bytes>, ObjectError> {
        while !self.ended {
            let Some(frame) = self.body.next().await else {
                self.ended = true;
                break;
            };
            let frame = frame?;
            if frame.is_empty() {
                continue;
            }
            let len = self.len() + frame.len() as u64;
            if let Some(declared) = self.declared()
                && len > declared
            {
                return Err(ObjectError::IncompleteBody {
                    declared,
                    received: len,
                });
            }
            if len > self.most {
                let limit_bytes = self.most;
                return Err(ObjectError::EntityTooLarge { limit_bytes });
            }
            self.digester.update(&frame);
            return Ok(Some(frame));
        }
        Ok(None)
    }

    /// Reads up to `most` bytes behind `buffer`. True when the body ended; what came
    /// beyond `most` is given back.
    pub async fn gather(
        &mut self,
        buffer: &mut Vec<u8>,
        most: usize,
    ) -> Result<Gathered, ObjectError> {
        while buffer.len() < most {
            let Some(mut frame) = self.frame().await? else {
                return Ok(Gathered::All);
            };
            let taken = frame.len().min(most - buffer.len());
            buffer.extend_from_slice(&frame.split_to(taken));
            if !frame.is_empty() {
                return Ok(Gathered::More(frame));
            }
        }
        Ok(Gathered::More(Bytes::new()))
    }

    /// The body's digests, after its end.
    ///
    /// # Errors
    /// It is not what was said of it.
    pub fn finish(self, metrics: &ObjectMetrics) -> Result<BodyDigests, ObjectError> {
        assert!(self.ended, "a body is judged at its end");
        let digests = self.digester.finish();
        metrics.bytes_in.add(digests.len);
        self.expectations.check(&digests)?;
        Ok(digests)
    }
}

/// How far a gathering came.
pub(super) enum Gathered {
    /// To the body's end.
    All,
    /// To its bound; these bytes came beyond it. More may come.
    More(Bytes),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::error::BodyError;

    fn intake(frames: Vec<Result<&'static [u8], ()>>, len: Option<u64>) -> Intake {
        let frames = frames.into_iter().map(|frame| match frame {
            Ok(bytes) => Ok(Bytes::from_static(bytes)),
            Err(()) => Err(BodyError("signature".into())),
        });
        let expectations = Expectations {
            len,
            ..Expectations::default()
        };
        Intake::new(Box::pin(futures::stream::iter(frames)), expectations, 10).unwrap()
    }

    #[tokio::test]
    async fn more_than_declared_and_more_than_allowed_are_refused() {
        let mut long = intake(vec![Ok(b"abc"), Ok(b""), Ok(b"def")], Some(5));
        assert_eq!(long.frame().await.unwrap().unwrap(), "abc");
        let refused = long.frame().await.unwrap_err();
        assert!(matches!(
            refused,
            ObjectError::IncompleteBody {
                declared: 5,
                received: 6
            }
        ));
        let mut long = intake(vec![Ok(b"01234567890")], None);
        let refused = long.frame().await.unwrap_err();
        assert!(matches!(
            refused,
            ObjectError::EntityTooLarge { limit_bytes: 10 }
        ));
    }

    #[tokio::test]
    async fn an_error_in_place_of_the_end_is_an_error() {
        let mut broken = intake(vec![Ok(b"abc"), Err(())], Some(3));
        assert!(broken.frame().await.is_ok());
        assert!(matches!(broken.frame().await, Err(ObjectError::Body(_))));
    }

    #[tokio::test]
    async fn gathering_stops_at_its_bound() {
        let mut body = intake(vec![Ok(b"abc"), Ok(b"defg")], None);
        let mut buffer = Vec::new();
        let Gathered::More(rest) = body.gather(&mut buffer, 5).await.unwrap() else {
            panic!("there is more");
        };
        assert_eq!((&buffer[..], &rest[..]), (&b"abcde"[..], &b"fg"[..]));
        assert!(matches!(
            body.gather(&mut Vec::new(), 1).await,
            Ok(Gathered::All)
        ));
        let metrics = ObjectMetrics::default();
        assert_eq!(body.finish(&metrics).unwrap().len, 7);
    }

    #[tokio::test]
    async fn a_short_body_is_refused_at_its_end() {
        let mut short = intake(vec![Ok(b"abc")], Some(4));
        while short.frame().await.unwrap().is_some() {}
        let refused = short.finish(&ObjectMetrics::default()).unwrap_err();
        assert!(matches!(
            refused,
            ObjectError::IncompleteBody {
                declared: 4,
                received: 3
            }
        ));
    }
}
