//! Durations as they are given on a command line.

use std::time::Duration;

/// Reads `30`, `0.5`, `90s`, `2h 30m`: a bare number is seconds, as in flock(1) and timeout(1).
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let seconds = text.parse::<f64>().map_err(|_| format!("{text:?} is no number of seconds"))?;
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give seconds as 30 or 0.5, or units as 90s, 500ms, 2h 30m"))
}

/// Such as `21.4s`, `2h10m` or `30s`: one word for people, to a tenth of a second.
pub(crate) fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(60) {
        let tenths = duration.as_millis() / 100;
        return if tenths.is_multiple_of(10) {
            format!("{}s", tenths / 10)
        } else {
            format!("{}.{}s", tenths / 10, tenths % 10)
        };
    }
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string().replace(' ', "")
}

/// Such as `00:02:41`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seconds_and_units_are_units() {
        for (text, millis) in [
            ("0", 0),
            ("30", 30_000),
            ("0.25", 250),
            (".5", 500),
            ("90s", 90_000),
            ("500ms", 500),
            ("2h 30m", 9_000_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert_eq!(parse(&u64::MAX.to_string()).unwrap(), Duration::from_secs(u64::MAX));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "-1", "x", "1.2.3", "inf", "NaN", "1e3", "99999999999999999999999", "30 parsecs"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(short(Duration::from_millis(21_449)), "21.4s");
        assert_eq!(short(Duration::from_secs(30)), "30s");
        assert_eq!(short(Duration::from_millis(7_800_900)), "2h10m");
        assert_eq!(clock(Duration::from_secs(161)), "00:02:41");
    }
}
