//! The token bucket that token requests of partitions draw from that never had a token.

use std::time::{Duration, Instant};

/// So many at once, refilled in a minute.
///
/// Tenants come from outside in a gateway, and anybody who sends a request can invent one. A partition that is refused pauses,
/// but the pause leaves with the partition when that is evicted, and nothing is kept for each tenant that was ever named.
/// So what is bounded is how often all of them together ask in vain: a request that brings a token gives back what it
/// drew, and a layer with room for so many partitions may start with that many.
#[derive(Debug)]
pub(super) struct FirstRequests {
    capacity: f64,
    level: f64,
    filled_at: Option<Instant>,
}

const REFILL: Duration = Duration::from_secs(60);

impl FirstRequests {
    /// `room`: how many partitions there may be.
    pub(super) fn new(room: usize) -> Self {
        // Exact up to 2^53, and who knows so many tenants.
        let capacity = room.max(1) as f64;
        Self { capacity, level: capacity, filled_at: None }
    }

    /// Draws one; otherwise says when there will be one.
    pub(super) fn draw(&mut self, now: Instant) -> Result<(), Duration> {
        let since = self.filled_at.map_or(Duration::ZERO, |then| now.saturating_duration_since(then));
        self.filled_at = Some(now);
        self.level = (self.level + since.as_secs_f64() * self.rate()).min(self.capacity);
        if self.level < 1.0 {
            return Err(Duration::try_from_secs_f64((1.0 - self.level) / self.rate()).unwrap_or(REFILL));
        }
        self.level -= 1.0;
        Ok(())
    }

    /// What was drawn brought a token, or was not sent.
    pub(super) fn give_back(&mut self) {
        self.level = (self.level + 1.0).min(self.capacity);
    }

    /// A second.
    fn rate(&self) -> f64 {
        self.capacity / REFILL.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour 140.
    #[test]
    fn as_many_fail_in_a_minute_as_there_is_room_for_partitions() {
        let start = Instant::now();
        let mut bucket = FirstRequests::new(1000);
        let mut draw_all = |after: u64| {
            let now = start + Duration::from_secs(after);
            (0..40_000).filter(|_| bucket.draw(now).is_ok()).count()
        };
        assert_eq!(draw_all(0), 1000);
        assert_eq!(draw_all(30), 500);
        assert_eq!(draw_all(60), 500);
        assert_eq!(draw_all(100_000), 1000, "it does not save up");
    }

    #[test]
    fn it_says_when_there_will_be_one() {
        let now = Instant::now();
        let mut bucket = FirstRequests::new(1);
        bucket.draw(now).unwrap();
        let told = bucket.draw(now + Duration::from_secs(20)).unwrap_err();
        assert_eq!(told.as_secs_f64().round(), 40.0);
        assert!(bucket.draw(now + Duration::from_secs(61)).is_ok());
    }

    #[test]
    fn what_brought_a_token_costs_nothing() {
        let now = Instant::now();
        let mut bucket = FirstRequests::new(10);
        for _ in 0..10_000 {
            bucket.draw(now).unwrap();
            bucket.give_back();
        }
        bucket.give_back();
        assert_eq!((0..40).filter(|_| bucket.draw(now).is_ok()).count(), 10);
    }
}
