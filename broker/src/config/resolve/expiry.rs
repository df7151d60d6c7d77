//! When a section ends: a TOML date or date and time as a moment.

use keystore::Time;

/// Midnight UTC of a date; of a date and time, that moment. A local time has no one meaning.
pub fn expiry(at: &toml::value::Datetime) -> Option<Time> {
    let date = at.date?;
    let days = days_since_epoch(
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    let seconds = match (&at.time, &at.offset) {
        (None, None) => 0,
        (Some(time), Some(offset)) => {
            let minutes = match offset {
                toml::value::Offset::Z => 0,
                toml::value::Offset::Custom { minutes } => i64::from(*minutes),
            };
            let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
            hour * 3600 + (minute - minutes) * 60 + time.second.map_or(0, i64::from)
        }
        _ => return None,
    };
    // Before 1970 is over as well as any moment of the past.
    let since_epoch = u64::try_from(days * 86_400 + seconds).unwrap_or(0);
    Some(Time::from_unix_s(since_epoch))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; years from March, so that the leap
/// day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        let at = |text: &str| expiry(&text.parse().unwrap()).map(Time::unix_s);
        assert_eq!(at("1970-01-01"), Some(0));
        assert_eq!(at("2000-02-29"), Some(951_782_400));
        assert_eq!(at("2027-06-30"), Some(1_814_313_600));
        assert_eq!(at("2027-06-30T02:00:00+02:00"), Some(1_814_313_600));
        assert_eq!(at("1969-12-31"), Some(0));
        assert_eq!(at("2027-06-30T00:00:00"), None);
        assert_eq!(at("12:00:00"), None);
    }
}
