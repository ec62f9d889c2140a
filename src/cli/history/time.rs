//! Times as people write them, and as they read them: in the local zone.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};

use crate::config::units;

/// Reads RFC 3339, a day or a time in the local zone, or an age such as `2h`.
///
/// # Errors
/// A sentence that says what was found and how to write it.
pub fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    read(text, Utc::now(), &Local)
}

fn read<Z: TimeZone>(text: &str, now: DateTime<Utc>, zone: &Z) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let exact = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let local = || {
        let local = local(text)?;
        // An hour that was left out, because clocks were set forward, is the one after it.
        let later = local.checked_add_signed(TimeDelta::hours(1))?;
        let times = [local, later].map(|time| zone.from_local_datetime(&time).earliest());
        Some(times.into_iter().flatten().next()?.to_utc())
    };
    let ago = || {
        let age = TimeDelta::from_std(units::parse_duration(text).ok()?).ok()?;
        now.checked_sub_signed(age)
    };
    exact.or_else(local).or_else(ago).ok_or_else(|| {
        format!(
            "{text:?} is not a time: write one such as 2026-11-30, \"2026-11-30 14:00\" or 2026-11-30T14:00:00Z, or an \
             age such as 2h or 7d"
        )
    })
}

/// A day, or a time of a day.
fn local(text: &str) -> Option<NaiveDateTime> {
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(day.and_time(NaiveTime::MIN));
    }
    let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f"];
    formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
}

/// A time in the local zone, to the second.
pub fn short(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// A time in the local zone, to the millisecond.
pub fn exact(time: DateTime<Utc>) -> String {
    time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f %:z").to_string()
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::parse_from_rfc3339("2026-11-30T12:00:00Z").unwrap().to_utc()
    }

    #[test]
    fn times_are_exact_or_local_or_ages() {
        let zone = FixedOffset::east_opt(3600).unwrap();
        for (text, wanted) in [
            ("2026-11-30T14:00:00Z", "2026-11-30T14:00:00Z"),
            ("2026-11-30T14:00:00.5-05:00", "2026-11-30T19:00:00.5Z"),
            ("2026-11-30", "2026-11-29T23:00:00Z"),
            (" 2026-11-30 14:00 ", "2026-11-30T13:00:00Z"),
            ("2026-11-30 14:00:01.25", "2026-11-30T13:00:01.25Z"),
            ("2026-11-30T14:00", "2026-11-30T13:00:00Z"),
            ("2h", "2026-11-30T10:00:00Z"),
            ("7d", "2026-11-23T12:00:00Z"),
            ("1h30m", "2026-11-30T10:30:00Z"),
            ("0s", "2026-11-30T12:00:00Z"),
        ] {
            let wanted = DateTime::parse_from_rfc3339(wanted).unwrap().to_utc();
            assert_eq!(read(text, now(), &zone), Ok(wanted), "{text}");
        }
        for wrong in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-11-31",
            "14:00",
            "-2h",
            "7",
            "99999999999d",
            "2026-11-30 25:00",
        ] {
            let why = read(wrong, now(), &zone).unwrap_err();
            assert!(why.ends_with("an age such as 2h or 7d"), "{why}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let shown = exact(now());
        let (time, zone) = shown.rsplit_once(' ').unwrap();
        let time = time.replace(' ', "T");
        assert_eq!(parse(&format!("{time}{zone}")), Ok(now()));
        assert_eq!(short(now()).len(), "2026-11-30 14:00:00 +01:00".len());
    }
}
