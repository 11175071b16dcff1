//! Dates as the logs write them. UTC only: a run folder should not depend on where it was made.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn now() -> f64 {
    // A clock before 1970 is a broken clock, not a reason to stop training.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// ISO 8601: `2026-11-21T10:04:07Z`.
pub fn iso(unix: f64) -> String {
    let t = Civil::new(unix);
    format!("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", t.year, t.month, t.day, t.hour, t.minute, t.second)
}

const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Python's `strftime` in English, as chat templates write dates; the character of a directive that is not known is the error.
pub fn strftime(format: &str, unix: f64) -> Result<String, char> {
    let t = Civil::new(unix);
    let (month, day) = (MONTHS[t.month as usize - 1], DAYS[t.weekday as usize]);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        out += &match rest.next().ok_or('%')? {
            'Y' => t.year.to_string(),
            'y' => format!("{:02}", t.year % 100),
            'm' => format!("{:02}", t.month),
            'B' => month.to_owned(),
            'b' => month[..3].to_owned(),
            'd' => format!("{:02}", t.day),
            'A' => day.to_owned(),
            'a' => day[..3].to_owned(),
            'H' => format!("{:02}", t.hour),
            'I' => format!("{:02}", (t.hour + 11) % 12 + 1),
            'p' => if t.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'M' => format!("{:02}", t.minute),
            'S' => format!("{:02}", t.second),
            '%' => "%".to_owned(),
            unknown => return Err(unknown),
        };
    }
    Ok(out)
}

/// Transformers' name for a TensorBoard folder: `Nov21_10-04-07_<host>`.
pub fn tensorboard_folder(unix: f64, host: &str) -> String {
    let t = Civil::new(unix);
    let month = &MONTHS[t.month as usize - 1][..3];
    format!("{month}{:02}_{:02}-{:02}-{:02}_{host}", t.day, t.hour, t.minute, t.second)
}

/// The machine's name, safe in a file name.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let safe: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).collect();
    if safe.is_empty() { "localhost".into() } else { safe }
}

struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Days since a Sunday.
    weekday: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    fn new(unix: f64) -> Self {
        let seconds = if unix.is_finite() { unix.floor() as i64 } else { 0 };
        let seconds = seconds.clamp(0, 253_402_300_799);
        let (days, rest) = (seconds / 86_400, seconds % 86_400);
        // Counting years from March puts the leap day last, and 400-year eras make the rest integer division.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            // 1970 began on a Thursday.
            weekday: (days + 4) % 7,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_date_u() {
        assert_eq!(iso(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(iso(951_782_400.0), "2000-02-29T00:00:00Z");
        assert_eq!(iso(1_795_255_447.9), "2026-11-21T10:04:07Z");
        assert_eq!(tensorboard_folder(1_795_255_447.0, "box"), "Nov21_10-04-07_box");
        assert_eq!(iso(f64::NAN), "1970-01-01T00:00:00Z");
    }

    /// `date -u -d @N '+…'`.
    #[test]
    fn templates_dates_agree_with_date() {
        let (saturday, thursday) = (1_795_255_447.0, 43_200.0);
        assert_eq!(strftime("%d %b %Y, %A %I:%M:%S %p", saturday).unwrap(), "21 Nov 2026, Saturday 10:04:07 AM");
        assert_eq!(strftime("%y%m%d %a %B %H %I %p 100%%", thursday).unwrap(), "700101 Thu January 12 12 PM 100%");
        assert_eq!(strftime("%Q", 0.0), Err('Q'));
        assert_eq!(strftime("%", 0.0), Err('%'));
    }
}
