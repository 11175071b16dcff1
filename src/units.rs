//! Lengths, sizes and durations as people write and read them.

/// Parses a token count: `4096`, `128k` (k = 1024), `1.5k`, `1m` (1024²), `1_000`.
pub fn parse_length(text: &str) -> Result<usize, String> {
    let clean = text.trim().replace('_', "").to_ascii_lowercase();
    let (digits, unit) = match clean.as_bytes().last() {
        Some(b'k') => (&clean[..clean.len() - 1], 1024.0),
        Some(b'm') => (&clean[..clean.len() - 1], 1024.0 * 1024.0),
        _ => (clean.as_str(), 1.0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = digits.parse::<f64>().ok().filter(|_| plain).map(|v| v * unit);
    match value {
        Some(v) if v >= 1.0 && v.fract() == 0.0 && v <= f64::from(u32::MAX) => Ok(v as usize),
        _ => Err(format!("expected a length such as 4096, 8k, 128k or 1m, got {text:?}")),
    }
}

/// Writes a token count the short way when that is exact: `131072` → `128k`, `1000` → `1000`.
pub fn format_length(tokens: usize) -> String {
    const M: usize = 1024 * 1024;
    match tokens {
        t if t >= M && t % M == 0 => format!("{}m", t / M),
        t if t >= 1024 && t % 1024 == 0 => format!("{}k", t / 1024),
        t => t.to_string(),
    }
}

/// The units of [`parse_size`] and their bytes, largest first.
const SIZES: [(char, u64); 4] = [('t', 1 << 40), ('g', 1 << 30), ('m', 1 << 20), ('k', 1 << 10)];

/// Parses a size in bytes: `80g` (g = 1024³), `512m`, `1.5g`, `1073741824`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let clean = text.trim().replace('_', "").to_ascii_lowercase();
    let unit = SIZES.iter().find_map(|(unit, bytes)| Some((clean.strip_suffix(*unit)?, *bytes)));
    let (digits, bytes) = unit.unwrap_or((&clean, 1));
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let value = digits.parse::<f64>().ok().filter(|_| plain).map(|v| v * bytes as f64);
    match value {
        // Every whole number below is exact as an f64.
        Some(v) if v >= 1.0 && v.fract() == 0.0 && v < (1u64 << 53) as f64 => Ok(v as u64),
        _ => Err(format!("expected a size such as 80g or 512m, got {text:?}")),
    }
}

/// Writes a size the short way that reads back: `85899345920` → `80g`.
pub fn format_size(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Bytes with a binary unit: `21.4 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Integers with thousands separators: `1,204`.
pub fn format_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Seconds as `0:01:42`, the way LLaMA-Factory's log writes them.
pub fn format_duration(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_back_as_they_were_written() {
        for n in [1, 999, 1024, 4096, 131_072, 1_048_576, 1000] {
            assert_eq!(parse_length(&format_length(n)), Ok(n));
        }
        assert_eq!(parse_length("1.5k"), Ok(1536));
        for bad in ["", "k", "-1", "0", "1.3", "inf", "nan", "1e3", "9999999999999k"] {
            assert!(parse_length(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_read_back_as_they_were_written() {
        for n in [1, 1000, 1024, 80 << 30, 3 << 40, (1 << 30) + 1] {
            assert_eq!(parse_size(&format_size(n)), Ok(n));
        }
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        for bad in ["", "g", "-1g", "0", "0.3", "80gg", "80gb", "nan", "9999999t"] {
            assert!(parse_size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn human_forms() {
        assert_eq!(format_bytes(23_000_000_000), "21.4 GiB");
        assert_eq!(format_count(1_234_567), "1,234,567");
        assert_eq!(format_duration(102.4), "0:01:42");
    }
}
