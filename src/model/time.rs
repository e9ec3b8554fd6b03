//! Stored time.

use std::fmt;
use std::time::Duration;

/// An instant in microseconds since 1970-01-01T00:00:00Z, UTC, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMicros(pub i64);

const MICROS_PER_DAY: i64 = 86_400_000_000;

impl UnixMicros {
    /// Makes an instant from Unix milliseconds, the unit providers stamp with.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Milliseconds since 1970, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The instant `by` later, stopping at the end of time.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The instant `by` earlier, stopping at the start of time.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Microseconds from `earlier` to `self`; negative when `earlier` is later.
    pub const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Days since 1970-01-01; two instants with the same number lie on one UTC day.
    pub const fn day(self) -> i64 {
        self.0.div_euclid(MICROS_PER_DAY)
    }

    /// The UTC date as `2026-11-20`.
    pub fn date(self) -> String {
        let mut text = [0u8; 27];
        self.write_rfc3339(&mut text);
        String::from_utf8_lossy(&text[..10]).into_owned()
    }

    /// Writes `2026-11-20T23:18:00.123456Z`: always 27 bytes for the years 0 to 9999.
    ///
    /// Own arithmetic because this runs once per envelope; a test compares it with jiff.
    /// Instants outside those years are written as the nearest one inside.
    pub fn write_rfc3339(self, out: &mut [u8; 27]) {
        const MIN: i64 = -62_167_219_200_000_000;
        const MAX: i64 = 253_402_300_799_999_999;
        let micros = self.0.clamp(MIN, MAX);
        let (days, of_day) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
        let (year, month, day) = civil_from_days(days);
        let secs = of_day / 1_000_000;
        put(&mut out[0..4], year);
        put(&mut out[5..7], month);
        put(&mut out[8..10], day);
        put(&mut out[11..13], secs / 3_600);
        put(&mut out[14..16], secs / 60 % 60);
        put(&mut out[17..19], secs % 60);
        put(&mut out[20..26], of_day % 1_000_000);
        (out[4], out[7], out[10], out[13], out[16], out[19], out[26]) = (b'-', b'-', b'T', b':', b':', b'.', b'Z');
    }

    /// Reads exactly what [`write_rfc3339`](Self::write_rfc3339) writes; anything else is `None`.
    pub fn parse_fixed(text: &[u8]) -> Option<Self> {
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if text.len() != 27 || marks.iter().any(|&(at, mark)| text[at] != mark) {
            return None;
        }
        let (year, month, day) = (get(&text[0..4])?, get(&text[5..7])?, get(&text[8..10])?);
        let (hour, minute, second) = (get(&text[11..13])?, get(&text[14..16])?, get(&text[17..19])?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let secs = days * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Self(secs * 1_000_000 + get(&text[20..26])?))
    }

    /// Reads any RFC 3339 text with an offset, as providers and people write it.
    ///
    /// A second of 60 is accepted and counts as 59, since a leap second has no Unix time of its own.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        if let Some(exact) = Self::parse_fixed(text.as_bytes()) {
            return Some(exact);
        }
        text.parse::<jiff::Timestamp>().ok().map(|stamp| Self(stamp.as_microsecond()))
    }
}

impl fmt::Display for UnixMicros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 27];
        self.write_rfc3339(&mut text);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

/// Reads Twitter's old date form, `Wed Sep 10 17:28:07 +0000 2025`.
///
/// Observed in TwitterAPI.io's `createdAt` and ScrapeBadger's `created_at`.
pub fn parse_legacy_date(text: &str) -> Option<UnixMicros> {
    if let Some(exact) = legacy_fixed(text.as_bytes()) {
        return Some(exact);
    }
    let zoned = jiff::fmt::strtime::parse("%a %b %d %H:%M:%S %z %Y", text).ok()?.to_timestamp().ok()?;
    Some(UnixMicros(zoned.as_microsecond()))
}

/// Reads the date of an HTTP header, `Sun, 06 Nov 1994 08:49:37 GMT`; the two forms that became obsolete in 1999 are not read.
pub(super) fn parse_http_date(text: &str) -> Option<UnixMicros> {
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(UnixMicros(stamp.as_microsecond()))
}

/// The form that providers write, in UTC and with the right day of the week: read once per post of an export.
fn legacy_fixed(text: &[u8]) -> Option<UnixMicros> {
    const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    if text.len() != 30 || &text[19..26] != b" +0000 " || [3, 7, 10].iter().any(|&at| text[at] != b' ') {
        return None;
    }
    let month = 1 + MONTHS.iter().position(|month| month[..] == text[4..7])? as i64;
    let (day, year) = (get(&text[8..10])?, get(&text[26..30])?);
    let (hour, minute, second) = (get(&text[11..13])?, get(&text[14..16])?, get(&text[17..19])?);
    let days = days_from_civil(year, month, day);
    let is_real = civil_from_days(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    let is_marked = text[13] == b':' && text[16] == b':' && text[..3] == DAYS[days.rem_euclid(7) as usize][..];
    (is_real && is_marked).then_some(UnixMicros((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000))
}

fn put(out: &mut [u8], mut value: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn get(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0i64, |sum, &b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// Days since 1970-01-01 to (year, month, day), by counting 400-year cycles from 0000-03-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fixed_form_agrees_with_jiff_and_comes_back(micros in -62_000_000_000_000_000i64..253_000_000_000_000_000) {
            let at = UnixMicros(micros);
            let text = at.to_string();
            let stamp = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(&text, &format!("{stamp:.6}"));
            prop_assert_eq!(UnixMicros::parse_fixed(text.as_bytes()), Some(at));
        }
    }

    proptest! {
        #[test]
        fn legacy_dates_agree_with_jiff(seconds in -62_000_000_000i64..253_000_000_000, at in 0usize..30, byte in 32u8..127) {
            let stamp = jiff::Timestamp::from_second(seconds).unwrap();
            let mut text = stamp.strftime("%a %b %d %H:%M:%S +0000 %Y").to_string();
            prop_assert_eq!(legacy_fixed(text.as_bytes()), Some(UnixMicros(seconds * 1_000_000)), "{}", text);
            text.replace_range(at..=at, &char::from(byte).to_string());
            if let Some(fixed) = legacy_fixed(text.as_bytes()) {
                let jiff = jiff::fmt::strtime::parse("%a %b %d %H:%M:%S %z %Y", &text).unwrap().to_timestamp().unwrap();
                prop_assert_eq!(fixed, UnixMicros(jiff.as_microsecond()), "{}", text);
            }
        }
    }

    #[test]
    fn refuses_dates_that_do_not_exist() {
        for text in [
            "2026-02-30T00:00:00.000000Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-01-01T24:00:00.000000Z",
            "2026-01-01 00:00:00.000000Z",
        ] {
            assert_eq!(UnixMicros::parse_fixed(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn reads_the_forms_providers_write() {
        let cases = [
            ("2026-03-13T12:00:00.150Z", 1_773_403_200_150_000),
            ("2026-03-03T09:59:57.123000+00:00", 1_772_531_997_123_000),
            ("2026-03-13T11:59:59Z", 1_773_403_199_000_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000_000),
        ];
        for (text, want) in cases {
            assert_eq!(UnixMicros::parse_rfc3339(text), Some(UnixMicros(want)), "{text}");
        }
        assert_eq!(UnixMicros::parse_rfc3339("2026-03-13T12:00:00"), None, "no offset, no instant");
        assert_eq!(parse_legacy_date("Wed Sep 10 17:28:07 +0000 2025"), Some(UnixMicros(1_757_525_287_000_000)));
        assert_eq!(parse_legacy_date("2025-09-10"), None);
    }
}
