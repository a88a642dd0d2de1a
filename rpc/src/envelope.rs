//! Envelopes: words of `proto`, and the vocabulary that they are written in.

use crate::hello::Versions;
use crate::wire::Envelope;
use proto::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

/// The largest message in bytes: a request, an answer, or one message between nodes. More than the
/// 100 MiB that one commit may write, so that what one process can do several can.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;
/// What gRPC and the envelope itself add, at most.
pub(crate) const ENVELOPE_BYTES: usize = 1 << 10;

/// Puts words into an envelope.
///
/// # Errors
/// How large they are: more than [`MESSAGE_BYTES_MAX`].
pub(crate) fn seal<T: Serialize>(words: &T) -> Result<Envelope, usize> {
    let body = codec::encode(words);
    match body.len() {
        length if length > MESSAGE_BYTES_MAX => Err(length),
        _ => {
            Ok(Envelope { version: Versions::OURS.max, body: body.into(), cluster: String::new() })
        }
    }
}

/// Takes words out.
///
/// # Errors
/// `FAILED_PRECONDITION` for a vocabulary that is not spoken here, `INVALID_ARGUMENT` for bytes that
/// are no words.
pub(crate) fn open<T: DeserializeOwned>(envelope: &Envelope) -> Result<T, Status> {
    let (version, ours) = (envelope.version, Versions::OURS);
    if !ours.has(version) {
        return Err(Status::failed_precondition(format!(
            "version {version} is not spoken here, {} to {} are: the older program is to be upgraded",
            ours.min, ours.max
        )));
    }
    codec::decode(&envelope.body)
        .map_err(|error| Status::invalid_argument(format!("the envelope's body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::control::ControlRequest;
    use tonic::Code;

    #[test]
    fn envelopes_of_other_versions_and_damaged_ones_are_refused() {
        let words = ControlRequest::Clock("jump".into());
        let sealed = seal(&words).expect("small");
        assert_eq!(open::<ControlRequest>(&sealed).expect("ours"), words);
        let newer = Envelope { version: 9, ..sealed.clone() };
        let status = open::<ControlRequest>(&newer).expect_err("newer");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("version 9"));
        let damaged = Envelope { body: sealed.body.slice(..2), ..sealed };
        assert_eq!(
            open::<ControlRequest>(&damaged).expect_err("damaged").code(),
            Code::InvalidArgument
        );
    }

    #[test]
    fn what_is_too_large_is_not_sealed() {
        let words = ControlRequest::Clock("x".repeat(MESSAGE_BYTES_MAX));
        assert!(seal(&words).expect_err("too large") > MESSAGE_BYTES_MAX);
    }
}
