//! The clock of a host: what its process takes for the time. It starts at a zero of its own, runs at a rate of its own,
//! and may jump ahead. It never goes back: shells read a monotonic clock, so whoever sets it back only makes it stand
//! still.

use std::time::Duration;

use hovercraft::Service;
use r2p2::Instant;
use rand::Rng;

use super::alarm::{Alarm, Ring};
use super::{Event, What, World};
use crate::flight::Party;

/// What clocks of a world have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClockConfig {
    /// Most by which a clock is faster or slower than the world's, in parts per million; drawn for each process.
    pub drift_ppm_max: u32,
    /// Most that a clock shows when its process starts; drawn for each process.
    pub start_max: Duration,
}

/// Parts per million of a clock that runs as fast as the world.
const EVEN: u64 = 1_000_000;

/// The clock of a host. See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// A moment of the world, and the nanoseconds that the clock would show then if it could be set back.
    world: Instant,
    local: i128,
    /// What it shows at least.
    floor: Instant,
    /// Microseconds it counts in a second of the world.
    rate: u64,
}

impl Default for Clock {
    /// One that shows the time of the world.
    fn default() -> Self {
        Self { world: Instant::ZERO, local: 0, floor: Instant::ZERO, rate: EVEN }
    }
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start<R: Rng>(now: Instant, config: ClockConfig, rng: &mut R) -> Self {
        let drift = i64::from(config.drift_ppm_max);
        let drift = if drift == 0 { 0 } else { rng.random_range(-drift..=drift) };
        let start = config.start_max.as_nanos() as u64;
        let local = if start == 0 { 0 } else { rng.random_range(0..=start) };
        let mut clock = Self { world: now, local: local.into(), floor: Instant::from_nanos(local), rate: EVEN };
        clock.set_drift(now, drift);
        clock
    }

    /// What it shows at a moment of the world, now or later.
    pub(super) fn local(&self, world: Instant) -> Instant {
        let nanos = self.unbound(world).clamp(0, u64::MAX.into());
        self.floor.max(Instant::from_nanos(nanos as u64))
    }

    /// When it first shows this, if nothing is done to it.
    pub(super) fn world(&self, local: Instant) -> Instant {
        if local <= self.floor {
            return self.world;
        }
        if local == Instant::FAR_FUTURE {
            return local;
        }
        let nanos = (i128::from(local.as_nanos()) - self.local).max(0).unsigned_abs();
        let passed = (nanos * u128::from(EVEN)).div_ceil(self.rate.into());
        self.world + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// From now on it is so much faster, in parts per million, or slower; half as fast at least.
    fn set_drift(&mut self, now: Instant, ppm: i64) {
        self.rebase(now);
        self.rate = EVEN.saturating_add_signed(ppm).max(EVEN / 2);
    }

    fn jump(&mut self, now: Instant, by: Duration) {
        self.rebase(now);
        self.local += by.as_nanos() as i128;
    }

    fn set_back(&mut self, now: Instant, by: Duration) {
        self.rebase(now);
        self.local -= by.as_nanos() as i128;
    }

    /// It stands still no longer.
    fn go_on(&mut self, now: Instant) {
        self.rebase(now);
        self.local = self.local.max(self.floor.as_nanos().into());
    }

    fn rebase(&mut self, now: Instant) {
        *self = Self { world: now, local: self.unbound(now), floor: self.local(now), rate: self.rate };
    }

    fn unbound(&self, world: Instant) -> i128 {
        let passed = world.since(self.world).as_nanos() * u128::from(self.rate) / u128::from(EVEN);
        self.local + passed as i128
    }
}

impl<S: Service> World<S> {
    /// What a node's or a client's clock shows; the world's own time for anybody else.
    pub fn local_now(&self, party: Party) -> Instant {
        self.clock(party).map_or(self.now, |clock| clock.local(self.now))
    }

    /// Makes a clock faster, in parts per million, or slower, until its process starts anew. No clock is less than half
    /// as fast as the world.
    pub fn set_drift(&mut self, party: Party, ppm: i64) {
        self.change_clock(party, |clock, now| clock.set_drift(now, ppm));
    }

    /// A clock jumps ahead.
    pub fn jump_clock(&mut self, party: Party, by: Duration) {
        self.faults.clock_jumps += 1;
        self.happened(What::ClockJumped { party, by });
        self.change_clock(party, |clock, now| clock.jump(now, by));
    }

    /// Somebody sets a clock back. Because no clock goes back, it stands still until it is that time again, or until
    /// [`World::let_clocks_run`].
    pub fn set_clock_back(&mut self, party: Party, by: Duration) {
        self.faults.clock_stalls += 1;
        self.happened(What::ClockStalled { party, by });
        self.change_clock(party, |clock, now| clock.set_back(now, by));
    }

    /// Ends all standing still: every clock goes on from what it shows.
    pub fn let_clocks_run(&mut self) {
        let nodes = self.hosts.iter().map(|host| Party::Node(host.id.0));
        let parties: Vec<Party> = nodes.chain((0..self.clients.len()).map(Party::Client)).collect();
        for party in parties {
            self.change_clock(party, Clock::go_on);
        }
    }

    fn clock(&self, party: Party) -> Option<&Clock> {
        match party {
            Party::Node(id) => Some(&self.host(id).clock),
            Party::Client(number) => Some(&self.clients[number].clock),
            Party::Aggregator(number) => self.aggregators.get(usize::from(number)).map(|host| &host.clock),
            Party::Gateway => Some(&self.gateway.clock),
            Party::Raw => None,
        }
    }

    /// A node or a client wants to be woken at this time of its clock.
    pub(super) fn set_alarm(&mut self, party: Party, deadline: Instant) {
        let now = self.now;
        let Some((clock, alarm)) = self.clock_and_alarm(party) else { return };
        let ring = alarm.set(deadline, now, clock);
        self.schedule_ring(party, ring);
    }

    /// An event of an alarm has come; whether its process is to be woken.
    pub(super) fn rang(&mut self, party: Party, number: u64) -> bool {
        let now = self.now;
        let Some((clock, alarm)) = self.clock_and_alarm(party) else { return false };
        let (wakes, ring) = alarm.rang(number, now, clock);
        self.schedule_ring(party, ring);
        wakes
    }

    /// Changes a clock, and when its alarm rings.
    fn change_clock(&mut self, party: Party, change: impl FnOnce(&mut Clock, Instant)) {
        let now = self.now;
        let Some((clock, alarm)) = self.clock_and_alarm(party) else { return };
        change(clock, now);
        let ring = alarm.reset(now, clock);
        self.schedule_ring(party, ring);
    }

    fn schedule_ring(&mut self, party: Party, ring: Option<Ring>) {
        if let Some(Ring { at, number }) = ring {
            self.schedule(at, Event::Ring { party, number });
        }
    }

    fn clock_and_alarm(&mut self, party: Party) -> Option<(&mut Clock, &mut Alarm)> {
        match party {
            Party::Node(id) => {
                let host = self.host_mut(id);
                Some((&mut host.clock, &mut host.alarm))
            }
            Party::Client(number) => {
                let client = &mut self.clients[number];
                Some((&mut client.clock, &mut client.alarm))
            }
            Party::Aggregator(number) => {
                let host = self.aggregators.get_mut(usize::from(number))?;
                Some((&mut host.clock, &mut host.alarm))
            }
            Party::Gateway => Some((&mut self.gateway.clock, &mut self.gateway.alarm)),
            Party::Raw => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + seconds as u32 * SECOND
    }

    fn even() -> Clock {
        Clock::start(at(100), ClockConfig::default(), &mut SmallRng::seed_from_u64(1))
    }

    /// Shows this at that time, does so first then, and never goes back.
    fn assert_shows(clock: &Clock, shown: &[(Instant, Instant)]) {
        for &(world, local) in shown {
            assert_eq!(clock.local(world), local, "at {world:?}");
        }
        assert!(shown.is_sorted_by_key(|(_, local)| *local));
    }

    #[test]
    fn a_clock_starts_with_its_process() {
        assert_shows(&even(), &[(at(100), at(0)), (at(107), at(7))]);
        assert_eq!(even().world(at(7)), at(107));
        assert_eq!(even().world(Instant::FAR_FUTURE), Instant::FAR_FUTURE);
        assert_eq!(even().world(at(0)), at(100));
    }

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let mut clock = even();
        clock.set_drift(at(110), 100_000);
        assert_shows(&clock, &[(at(110), at(10)), (at(120), at(21))]);
        assert_eq!(clock.world(at(21)), at(120));
        clock.set_drift(at(120), -100_000);
        assert_shows(&clock, &[(at(120), at(21)), (at(130), at(30))]);
        assert_eq!(clock.world(at(30)), at(130));
        clock.set_drift(at(130), -999_999);
        assert_shows(&clock, &[(at(132), at(31))]);
    }

    #[test]
    fn a_jump_is_at_once() {
        let mut clock = even();
        clock.jump(at(110), 5 * SECOND);
        assert_shows(&clock, &[(at(110), at(15)), (at(111), at(16))]);
        assert_eq!(clock.world(at(16)), at(111));
        assert!(clock.world(at(12)) <= at(110), "what it jumped over is now");
    }

    #[test]
    fn a_clock_set_back_stands_still() {
        let mut clock = even();
        clock.set_back(at(110), 5 * SECOND);
        assert_shows(&clock, &[(at(110), at(10)), (at(112), at(10)), (at(115), at(10)), (at(116), at(11))]);
        assert_eq!(clock.world(at(11)), at(116));
        clock.set_back(at(112), SECOND);
        assert_shows(&clock, &[(at(112), at(10)), (at(116), at(10)), (at(117), at(11))]);
        let mut goes_on = clock;
        goes_on.go_on(at(112));
        assert_shows(&goes_on, &[(at(112), at(10)), (at(113), at(11))]);
        clock.jump(at(112), 4 * SECOND);
        assert_shows(&clock, &[(at(112), at(10)), (at(113), at(11))]);
    }

    #[test]
    fn a_clock_set_back_before_its_zero_stands_still_as_long() {
        let mut clock = even();
        clock.set_back(at(102), 10 * SECOND);
        assert_shows(&clock, &[(at(102), at(2)), (at(112), at(2)), (at(113), at(3))]);
        assert_eq!(clock.world(at(3)), at(113));
        clock.set_drift(at(104), 0);
        assert_shows(&clock, &[(at(104), at(2)), (at(112), at(2)), (at(113), at(3))]);
    }

    #[test]
    fn deadlines_are_never_early_and_not_a_nanosecond_late() {
        let mut rng = SmallRng::seed_from_u64(2);
        let config = ClockConfig { drift_ppm_max: 100_000, start_max: 1000 * SECOND };
        for _ in 0..2000 {
            let now = Instant::from_nanos(rng.random_range(0..1 << 40));
            let mut clock = Clock::start(now, config, &mut rng);
            let now = now + Duration::from_nanos(rng.random_range(0..1 << 33));
            match rng.random_range(0..3) {
                0 => clock.jump(now, Duration::from_nanos(rng.random_range(0..1 << 35))),
                1 => clock.set_back(now, Duration::from_nanos(rng.random_range(0..1 << 35))),
                _ => {}
            }
            let shown = clock.local(now);
            let deadline = shown + Duration::from_nanos(rng.random_range(1..1 << 33));
            let due = clock.world(deadline);
            assert!(due > now && clock.local(due) >= deadline, "{clock:?}");
            assert!(clock.local(Instant::from_nanos(due.as_nanos() - 1)) < deadline, "{clock:?}");
            assert!(clock.local(now + SECOND) >= shown, "{clock:?}");
        }
    }
}
