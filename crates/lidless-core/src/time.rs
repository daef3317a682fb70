//! What time is it? `Now` is read once a turn, by whoever drives the engine, and handed in.
//!
//! Every delay is computed on `monotonic`; `wall_ms` is for records and people only, and may jump.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One reading of both clocks.
///
/// `monotonic` is *engine time*: it never goes back, not even over a restart of lidless or of the machine. The runtime
/// carries it on from the journal's last record, so that a restart budget outlives the process that spent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// Engine time, in the journal as whole microseconds.
    #[serde(rename = "mono_us", with = "micros")]
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch, as the machine's clock says.
    pub wall_ms: i64,
}

/// Cuts a time to whole microseconds, as the journal keeps it.
///
/// **Invariant:** every time in an event is whole microseconds, so that what is read back is what was decided.
pub fn whole_micros(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_micros() * 1_000)
}

/// Writes a span of time as people do: "340 ms", "2.1 s", "4 min 10 s", "2 h 5 min", "3 d 4 h".
pub fn span(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0 if time.as_micros() < 1000 => format!("{} µs", time.as_micros()),
        0 => format!("{} ms", time.as_millis()),
        1..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3600 => two((secs / 60, "min"), (secs % 60, "s")),
        3600..86_400 => two((secs / 3600, "h"), (secs % 3600 / 60, "min")),
        _ => two((secs / 86_400, "d"), (secs % 86_400 / 3600, "h")),
    }
}

fn two(large: (u64, &str), small: (u64, &str)) -> String {
    match small.0 {
        0 => format!("{} {}", large.0, large.1),
        count => format!("{} {} {count} {}", large.0, large.1, small.1),
    }
}

/// Serialises a `Duration` as whole microseconds.
pub mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes whole microseconds; longer than 584,000 years is cut.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX))
    }

    /// Reads whole microseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_micros(u64::deserialize(from)?))
    }
}

/// Serialises an optional `Duration` as whole microseconds or null.
pub mod micros_opt {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes whole microseconds, or null.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::micros::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    /// Reads whole microseconds, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
    }
}
