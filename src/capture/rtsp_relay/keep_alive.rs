//! Pure: how a camera is told that somebody still watches.

use std::time::Duration;

/// What a session's timeout is where the camera states none (RFC 2326, section 12.37).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest time between two requests.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time between two requests, which also keeps a firewall's memory of the connection fresh.
const LONGEST: Duration = Duration::from_secs(30);

/// The request that keeps a session alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum KeepAlive {
    /// What RFC 2326 recommends (section 10.8).
    #[default]
    GetParameter,
    /// For cameras that do not know the other.
    Options,
    /// For cameras that close the connection on either; RTCP must do.
    Nothing,
}

impl KeepAlive {
    /// The method of the request, for a camera that says it offers GET_PARAMETER, or that it does not.
    pub fn method(self, offers_get_parameter: bool) -> Option<&'static str> {
        match self {
            Self::GetParameter if offers_get_parameter => Some("GET_PARAMETER"),
            Self::GetParameter | Self::Options => Some("OPTIONS"),
            Self::Nothing => None,
        }
    }

    /// What to try after the camera has refused `method`.
    pub fn after_refusal(self, method: &str) -> Self {
        match (self, method) {
            (Self::GetParameter, "GET_PARAMETER") => Self::Options,
            _ => self,
        }
    }

    /// What to try after the camera has closed the connection. `unanswered`: the method of a request that it has
    /// left without an answer.
    pub fn after_close(self, unanswered: Option<&str>) -> Self {
        match (self, unanswered) {
            (_, Some("GET_PARAMETER")) => Self::Options,
            (_, Some(_)) => Self::Nothing,
            // Without requests it went no better.
            (Self::Nothing, None) => Self::GetParameter,
            (other, None) => other,
        }
    }
}

/// How long to wait between two requests. `session`: the value of the header `Session`.
pub(super) fn interval(session: &str) -> Duration {
    let stated =
        session.split(';').filter_map(|part| part.trim().split_once('=')).find_map(|(name, value)| {
            let seconds = value.trim().trim_matches('"').parse().ok()?;
            name.trim().eq_ignore_ascii_case("timeout").then(|| Duration::from_secs(seconds))
        });
    let timeout = stated.filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
    (timeout / 2).clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_at_half_of_the_timeout() {
        for (session, seconds) in [
            ("12345678", 30),
            ("12345678;timeout=20", 10),
            ("12345678; Timeout = \"10\"", 5),
            ("12345678;timeout=1", 1),
            ("12345678;timeout=0", 30),
            ("12345678;timeout=3600", 30),
        ] {
            assert_eq!(interval(session), Duration::from_secs(seconds), "{session}");
        }
    }

    #[test]
    fn a_camera_is_asked_in_another_way_until_it_stays() {
        let mut keep_alive = KeepAlive::default();
        let mut methods = Vec::new();
        for _ in 0..4 {
            methods.push(keep_alive.method(true));
            keep_alive = keep_alive.after_close(keep_alive.method(true));
        }
        assert_eq!(methods, [Some("GET_PARAMETER"), Some("OPTIONS"), None, Some("GET_PARAMETER")]);
        assert_eq!(KeepAlive::Options.after_close(None), KeepAlive::Options);
    }

    #[test]
    fn a_refused_get_parameter_becomes_options_which_stays() {
        assert_eq!(KeepAlive::GetParameter.after_refusal("GET_PARAMETER"), KeepAlive::Options);
        assert_eq!(KeepAlive::Options.after_refusal("OPTIONS"), KeepAlive::Options);
        assert_eq!(KeepAlive::GetParameter.method(false), Some("OPTIONS"));
    }
}
