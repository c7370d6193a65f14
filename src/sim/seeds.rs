//! Runs of the simulation, a seed each.

use std::sync::Arc;

use fastrand::Rng;

use crate::sim::invariants;
use crate::sim::sweep::{Outcome, Sweep, Totals};
use crate::sim::world::World;

/// Runs one seed from its beginning to its end.
fn run(rng: &mut Rng) -> Outcome {
    let mut world = World::new(rng.fork());
    for _ in 0..world.rng.usize(50..600) {
        world.step();
    }
    world.end();
    invariants::check(&world);
    let stats = world.hub.stats();
    let polled = world.pollers.iter().map(|poller| poller.heard.len() as u64).sum();
    end(world);
    Outcome { stats, polled }
}

/// The last handle goes, and the hub with it.
fn end(world: World) {
    let World { mut executor, mut rng, time, hub, script, peers, posters, pollers, .. } = world;
    let queue_config = Arc::downgrade(&hub.shared().queue_config);
    let timers = Arc::clone(&hub.shared().timers);
    drop((hub, script));
    while executor.tick(&mut rng) {}
    assert_eq!(executor.tasks(), 0, "no task is left");
    assert_eq!(timers.len(), (0, 0), "no deadline is left");
    drop(timers);
    assert_eq!(time.timers(), 0, "no timer is left");
    let lines =
        peers.iter().map(|peer| &peer.line).chain(posters.iter().map(|poster| &poster.line));
    let mut lines = lines.chain(pollers.iter().map(|poller| &poller.line));
    assert!(lines.all(|line| line.lock().closed), "no descriptor is left");
    drop(executor);
    assert_eq!(queue_config.strong_count(), 0, "no queue is left");
}

#[test]
fn every_seed_keeps_the_invariants() {
    let sweep = Sweep::from_environment("sim::seeds::every");
    let Totals { runs, upgrades, recipients, evicted, compressed, polled, .. } = sweep.run(run);
    println!(
        "{runs} runs: {upgrades} upgrades, {recipients} recipients, {evicted} clients evicted, \
         {compressed} messages compressed, {polled} heard by request"
    );
    // A simulation in which nothing happens proves nothing.
    let happens =
        upgrades > runs && recipients > 50 * runs && evicted > runs / 2 && compressed > runs;
    let happens = happens && polled > runs / 2;
    assert!(happens || sweep.replays(), "too little happens");
}

#[test]
fn a_seed_replays() {
    for seed in 0..30 {
        let [first, second] = [(); 2].map(|()| run(&mut Rng::with_seed(seed)));
        assert_eq!(first, second, "seed {seed}");
    }
}
