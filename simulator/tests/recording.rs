//! Recordings of whole runs.

use simulator::recording::{Fate, RecordingConfig};
use simulator::registers::{tell_reply, tell_request};
use simulator::swarm::{self, Options};
use simulator::world::What;

fn config() -> RecordingConfig {
    RecordingConfig { request: tell_request, reply: tell_reply, datagrams_max: usize::MAX, moments_max: usize::MAX }
}

#[test]
fn a_recorded_run_is_the_same_run() {
    for number in 0..6 {
        let options = Options::draw(swarm::seed_of(3, number));
        let (report, recording) = swarm::run_recorded(&options, Some(config()));
        assert_eq!(report, swarm::run_options(&options), "seed {}", options.seed);
        assert_eq!(swarm::run_recorded(&options, None).1.map(|recording| recording.end), None);

        let recording = recording.expect("it was asked for");
        let count = |wanted: fn(Fate) -> bool| recording.datagrams().filter(|datagram| wanted(datagram.fate)).count();
        let arrived = count(|fate| matches!(fate, Fate::Delivered(_) | Fate::Unheard(_)));
        assert_eq!(arrived as u64, report.delivered);
        assert_eq!(count(|fate| matches!(fate, Fate::Lost(_))) as u64, report.faults.lost);
        assert_eq!(count(|fate| matches!(fate, Fate::Cut(_))) as u64, report.faults.cut);
        assert_eq!(recording.datagrams().filter(|datagram| datagram.copy_of.is_some()).count() as u64, {
            report.faults.duplicated
        });
        let kills = recording.moments().filter(|moment| matches!(moment.what, What::Killed(_))).count();
        assert_eq!(kills as u64, report.faults.kills);
        let answered = recording.operations().filter(|operation| operation.end.is_some()).count();
        assert!(answered as u64 >= report.answered && report.answered > 0);
        for datagram in recording.datagrams() {
            assert!(!recording.summary(datagram).is_empty());
        }
    }
}
