//! When is a calendar's next moment? The expressions of cron in the zones of IANA, also where clocks are changed.
//!
//! As cron daemons of good repute have it: whoever names an hour means the clock on the wall. A moment that a clock set
//! forward leaves out comes once, right after; one that a clock set back brings twice comes once, the first time. Whoever
//! names no hour means the time that goes by: every five minutes is every five minutes, whatever the clock on the wall does.

use std::cmp::Ordering;

use croner::{
    CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday, errors::CronError,
};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Returns the first moment of an expression after another, both in milliseconds since the Unix epoch; none where there is none,
/// or where the expression or the zone cannot be understood.
pub fn next_after(expression: &str, zone: &str, after_wall_ms: i64) -> Option<i64> {
    Moments::of(expression, zone)?.after(after_wall_ms)
}

/// The moments of an expression in a zone.
#[derive(Clone, Debug)]
pub struct Moments {
    cron: Cron,
    zone: TimeZone,
    /// It names no hour.
    hourless: bool,
}

impl Moments {
    /// Reads an expression and the rules of a zone.
    pub fn of(expression: &str, zone: &str) -> Option<Moments> {
        let cron: Cron = expression.parse().ok()?;
        let hourless = cron.pattern.hours.values().len() == 24;
        // This one needs no table of zones.
        let zone = if zone == "UTC" { TimeZone::UTC } else { TimeZone::get(zone).ok()? };
        Some(Moments { cron, zone, hourless })
    }

    /// Returns the first one after a moment.
    pub fn after(&self, wall_ms: i64) -> Option<i64> {
        // Moments are whole seconds: what lies within one is after its beginning.
        let after = Timestamp::from_second(wall_ms.div_euclid(1_000)).ok()?;
        let next = if self.hourless { self.in_time_that_goes_by(after) } else { self.on_the_wall(after) };
        next?.as_second().checked_mul(1_000)
    }

    fn in_time_that_goes_by(&self, after: Timestamp) -> Option<Timestamp> {
        let after = Lived { at: after, zone: self.zone.clone() };
        self.cron.find_next_occurrence(&after, false).ok().map(|next| next.at)
    }

    fn on_the_wall(&self, after: Timestamp) -> Option<Timestamp> {
        let mut wall = Wall(self.zone.to_datetime(after));
        loop {
            wall = self.cron.find_next_occurrence(&wall, false).ok()?;
            // In the second half of an hour that comes twice, what the wall says next may have been in the first.
            if let Some(moment) = self.moment_of(wall.0).filter(|moment| *moment > after) {
                return Some(moment);
            }
        }
    }

    /// When the clock on the wall says so, once.
    fn moment_of(&self, wall: DateTime) -> Option<Timestamp> {
        let offset = match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Fold { before, .. } => before,
            AmbiguousOffset::Gap { after, .. } => {
                // By the new time it would have been before the change, which therefore is what comes next.
                let before = after.to_timestamp(wall).ok()?;
                return self.zone.following(before).next().map(|change| change.timestamp());
            }
        };
        offset.to_timestamp(wall).ok()
    }
}

/// A clock on a wall that nobody ever changes.
#[derive(Clone)]
struct Wall(DateTime);

/// A moment, and what clocks say there.
#[derive(Clone)]
struct Lived {
    at: Timestamp,
    zone: TimeZone,
}

impl CronDateTime for Wall {
    fn to_civil(&self) -> CivilDateTime {
        to_civil(self.0)
    }

    fn civil_weekday(&self) -> Weekday {
        weekday(self.0)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        from_civil(civil).map(|wall| Resolution::Single(Wall(wall)))
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Wall)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl CronDateTime for Lived {
    fn to_civil(&self) -> CivilDateTime {
        to_civil(self.zone.to_datetime(self.at))
    }

    fn civil_weekday(&self) -> Weekday {
        weekday(self.zone.to_datetime(self.at))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let wall = from_civil(civil)?;
        let at = |offset: jiff::tz::Offset| {
            let at = offset.to_timestamp(wall).map_err(|_| CronError::InvalidTime)?;
            Ok(Lived { at, zone: self.zone.clone() })
        };
        Ok(match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => Resolution::Single(at(offset)?),
            AmbiguousOffset::Fold { before, after } => Resolution::Ambiguous(at(before)?, at(after)?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let at = self.at.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        Some(Lived { at, zone: self.zone.clone() })
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

fn to_civil(wall: DateTime) -> CivilDateTime {
    let part = |number: i8| number.unsigned_abs().into();
    CivilDateTime::new(
        CivilDate::from_parts_unchecked(wall.year().into(), part(wall.month()), part(wall.day())),
        CivilTime::from_parts_unchecked(part(wall.hour()), part(wall.minute()), part(wall.second())),
    )
}

fn from_civil(civil: CivilDateTime) -> Result<DateTime, CronError> {
    let part = |number: u32| i8::try_from(number).map_err(|_| CronError::InvalidTime);
    let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
    let (month, day) = (part(civil.month())?, part(civil.day())?);
    let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
    DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)
}

fn weekday(wall: DateTime) -> Weekday {
    Weekday::from_days_from_sunday(wall.weekday().to_sunday_zero_offset().unsigned_abs().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISBON: &str = "Europe/Lisbon";
    const NEW_YORK: &str = "America/New_York";
    const LORD_HOWE: &str = "Australia/Lord_Howe";

    /// The next moments after one, as the clocks there say.
    fn moments(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let rules = TimeZone::get(zone).expect("the zone is known here");
        let mut at: i64 = after.parse::<Timestamp>().expect("a time").as_millisecond();
        let next = || {
            at = next_after(expression, zone, at)?;
            let at = Timestamp::from_millisecond(at).ok()?;
            Some(at.to_zoned_datetime(rules.clone()).strftime("%m-%d %H:%M:%S %:z").to_string())
        };
        std::iter::repeat_with(next).take(count).flatten().collect()
    }

    #[test]
    fn a_moment_that_a_clock_leaves_out_comes_once_right_after() {
        for (expression, zone, after, wanted) in [
            // 01:00 to 02:00 there is no such hour.
            (
                "30 1 * * *",
                LISBON,
                "2026-03-28T12:00:00Z",
                ["03-29 02:00:00 +01:00", "03-30 01:30:00 +01:00"],
            ),
            ("0 1 * * *", LISBON, "2026-03-28T12:00:00Z", ["03-29 02:00:00 +01:00", "03-30 01:00:00 +01:00"]),
            // Two of them are still one, also with one that is due right after.
            (
                "*/20 1 * * *",
                LISBON,
                "2026-03-29T00:59:59Z",
                ["03-29 02:00:00 +01:00", "03-30 01:00:00 +01:00"],
            ),
            (
                "0 1,2 * * *",
                LISBON,
                "2026-03-29T00:59:59Z",
                ["03-29 02:00:00 +01:00", "03-30 01:00:00 +01:00"],
            ),
            (
                "30 2 * * *",
                NEW_YORK,
                "2026-03-07T12:00:00Z",
                ["03-08 03:00:00 -04:00", "03-09 02:30:00 -04:00"],
            ),
            // Half an hour is left out: from 02:00 to 02:30.
            (
                "15 2 * * *",
                LORD_HOWE,
                "2026-10-03T12:00:00Z",
                ["10-04 02:30:00 +11:00", "10-05 02:15:00 +11:00"],
            ),
            (
                "45 2 * * *",
                LORD_HOWE,
                "2026-10-03T12:00:00Z",
                ["10-04 02:45:00 +11:00", "10-05 02:45:00 +11:00"],
            ),
        ] {
            assert_eq!(moments(expression, zone, after, 2), wanted, "{expression} in {zone}");
        }
    }

    #[test]
    fn a_moment_that_comes_twice_on_the_wall_comes_once() {
        for (expression, zone, after, wanted) in [
            (
                "30 1 * * *",
                LISBON,
                "2026-10-24T12:00:00Z",
                ["10-25 01:30:00 +01:00", "10-26 01:30:00 +00:00"],
            ),
            // Seen from the second half, the first one is over.
            (
                "30 1 * * *",
                LISBON,
                "2026-10-25T01:10:00Z",
                ["10-26 01:30:00 +00:00", "10-27 01:30:00 +00:00"],
            ),
            (
                "*/30 1 * * *",
                NEW_YORK,
                "2026-11-01T05:10:00Z",
                ["11-01 01:30:00 -04:00", "11-02 01:00:00 -05:00"],
            ),
            // Half an hour comes twice: from 01:30 to 02:00.
            (
                "45 1 * * *",
                LORD_HOWE,
                "2026-04-04T12:00:00Z",
                ["04-05 01:45:00 +11:00", "04-06 01:45:00 +10:30"],
            ),
        ] {
            assert_eq!(moments(expression, zone, after, 2), wanted, "{expression} in {zone}");
        }
    }

    #[test]
    fn what_names_no_hour_goes_by_the_time_that_passes() {
        let over = moments("*/30 * * * *", LISBON, "2026-10-25T00:00:00Z", 5);
        let wanted = ["01:30:00 +01:00", "01:00:00 +00:00", "01:30:00 +00:00", "02:00:00 +00:00"];
        assert_eq!(over[..4], wanted.map(|at| format!("10-25 {at}")));
        let into = moments("*/30 * * * *", LISBON, "2026-03-29T00:00:00Z", 3);
        let wanted = ["00:30:00 +00:00", "02:00:00 +01:00", "02:30:00 +01:00"];
        assert_eq!(into, wanted.map(|at| format!("03-29 {at}")));
        let half = moments("*/20 * * * *", LORD_HOWE, "2026-04-04T14:20:00Z", 5);
        let wanted =
            ["01:40:00 +11:00", "01:40:00 +10:30", "02:00:00 +10:30", "02:20:00 +10:30", "02:40:00 +10:30"];
        assert_eq!(half, wanted.map(|at| format!("04-05 {at}")));
    }

    #[test]
    fn leap_days_are_days() {
        let leap = |expression, after, count| {
            let all = moments(expression, "UTC", after, count);
            all.into_iter().map(|at| at[..14].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(leap("0 4 29 2 *", "2026-01-01T00:00:00Z", 2), ["02-29 04:00:00", "02-29 04:00:00"]);
        let next = next_after("0 4 29 2 *", "UTC", 1_767_225_600_000).and_then(|at| {
            let at = Timestamp::from_millisecond(at).ok()?;
            Some(at.to_string())
        });
        assert_eq!(next.as_deref(), Some("2028-02-29T04:00:00Z"));
        assert_eq!(leap("0 0 L 2 *", "2027-01-01T00:00:00Z", 2), ["02-28 00:00:00", "02-29 00:00:00"]);
        assert_eq!(next_after("0 0 30 2 *", "UTC", 0), None, "a day that never is");
    }

    #[test]
    fn seconds_are_a_sixth_field_and_nonsense_has_no_moments() {
        assert_eq!(next_after("* * * * * *", "UTC", 1_500), Some(2_000));
        assert_eq!(next_after("*/10 * * * * *", "UTC", -1), Some(0));
        assert_eq!(next_after("0 4 * *", "UTC", 0), None);
        assert_eq!(next_after("0 4 * * *", "Europe/Nowhere", 0), None);
    }

    fn expressions() -> impl Strategy<Value = String> {
        let minutes =
            prop_oneof![Just("*".to_owned()), Just("*/7".to_owned()), (0..60_u8).prop_map(|m| m.to_string())];
        let hours = prop_oneof![
            Just("*".to_owned()),
            Just("*/2".to_owned()),
            Just("1-3".to_owned()),
            (0..24_u8).prop_map(|h| h.to_string())
        ];
        let days = prop_oneof![Just("*"), Just("1"), Just("L"), Just("*/3")];
        (minutes, hours, days, prop_oneof![Just("*"), Just("0"), Just("1-5")])
            .prop_map(|(minute, hour, day, weekday)| format!("{minute} {hour} {day} * {weekday}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn moments_follow_each_other_and_nothing_lies_between(
            expression in expressions(),
            zone in prop_oneof![Just(LISBON), Just(NEW_YORK), Just(LORD_HOWE), Just("Pacific/Apia")],
            // Around the changes of a year, where it is difficult, and anywhere else.
            near in prop_oneof![
                Just(1_774_746_000_000_i64), Just(1_792_890_000_000), Just(1_772_953_200_000), Just(1_793_512_800_000),
                Just(1_791_000_000_000), Just(1_325_200_000_000), 0..4_000_000_000_000_i64,
            ],
            by in -8_000_000..8_000_000_i64,
            within in 0.0..1.0,
        ) {
            let moments = Moments::of(&expression, zone).expect("it can be read");
            let mut at = near + by;
            for _ in 0..5 {
                let Some(next) = moments.after(at) else { break };
                prop_assert!(next > at, "{expression} in {zone}: {next} after {at}");
                // Wherever one looks from in between, the next one is the same.
                #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "any place will do")]
                let between = at + ((next - at) as f64 * within) as i64;
                if between < next {
                    prop_assert_eq!(moments.after(between), Some(next), "{} in {}", expression, zone);
                }
                at = next;
            }
        }
    }
}
