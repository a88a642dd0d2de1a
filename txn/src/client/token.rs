//! Session tokens (R4): what one session has seen, told to another.
//!
//! A session that has read or written something may continue elsewhere: in another process, behind
//! another front door, at another replica. Carrying the largest timestamp along is enough for it
//! to find at least what it has seen, since a snapshot holds everything up to its timestamp. No
//! state is kept for it at any server.

use proto::Error;
use std::fmt;
use std::str::FromStr;
use truetime::Timestamp;

/// How a token's text begins; another format gets another beginning.
const PREFIX: &str = "s1-";

/// The largest timestamp that a session has read at or written at. As text it is one short word,
/// for cookies, headers and message queues:
///
/// ```
/// use txn::client::SessionToken;
/// # use truetime::Timestamp;
/// let mut session = SessionToken::default();
/// session.observe(Timestamp::from_micros(1_412_262_083_045_123));
/// let text = session.to_string();
/// assert_eq!(text.parse(), Ok(session));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionToken(Timestamp);

impl SessionToken {
    /// The token of somebody who has seen everything up to a timestamp.
    pub fn at(timestamp: Timestamp) -> SessionToken {
        SessionToken(timestamp)
    }

    /// The session has read at, or committed at, this timestamp.
    pub fn observe(&mut self, timestamp: Timestamp) {
        self.0 = self.0.max(timestamp);
    }

    /// The token of somebody who has seen what both have seen.
    #[must_use]
    pub fn merge(self, other: SessionToken) -> SessionToken {
        self.max(other)
    }

    /// Nothing newer was seen.
    pub fn timestamp(&self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:x}", self.0.micros())
    }
}

impl FromStr for SessionToken {
    type Err = Error;

    /// # Errors
    /// `InvalidArgument`: not the text of a token.
    fn from_str(text: &str) -> Result<SessionToken, Error> {
        let digits = text.strip_prefix(PREFIX);
        // What `from_str_radix` takes besides digits is a sign, which no token has.
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let micros = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let micros = micros.ok_or_else(|| {
            Error::InvalidArgument(format!(
                "'{text}' is no session token; one looks like {PREFIX}50471e3ca2703"
            ))
        })?;
        Ok(SessionToken(Timestamp::from_micros(micros)))
    }
}
