//! Numbers, for people: `cargo nextest run -p keystore-tpm --run-ignored only --no-capture rates`.

use crate::world::{How, World, make, object};
use keystore::Alg;
use keystore::backend::Backend;
use keystore::config::Sessions;
use std::time::{Duration, Instant};

const FOR: Duration = Duration::from_secs(3);

#[test]
#[ignore = "measures, and asserts nothing that a busy machine could not break"]
fn rates() {
    for sessions in [Sessions::Password, Sessions::Encrypted] {
        let world = World::new();
        let how = How {
            sessions: Some(sessions),
            ..How::default()
        };
        let backend = world.open_as(&how).unwrap();
        println!("{}", backend.describe());
        for (n, alg) in (1..).zip([Alg::ES256, Alg::ES384, Alg::RS256, Alg::PS256]) {
            let key = make(&backend, n, alg);
            let (begun, mut times) = (Instant::now(), Vec::new());
            while begun.elapsed() < FOR {
                let one = Instant::now();
                backend.sign(object(n), &key, alg, b"message").unwrap();
                times.push(one.elapsed());
            }
            times.sort();
            let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!("{sessions:?} {alg}: {rate:.0}/s, p50 {p50:?}, p99 {p99:?}");
        }
        let keys: Vec<_> = (10..20).map(|n| make(&backend, n, Alg::ES256)).collect();
        let (begun, mut count) = (Instant::now(), 0u32);
        while begun.elapsed() < FOR {
            for (n, key) in (10..).zip(&keys) {
                backend
                    .sign(object(n), key, Alg::ES256, b"message")
                    .unwrap();
                count += 1;
            }
        }
        let rate = f64::from(count) / begun.elapsed().as_secs_f64();
        println!("{sessions:?} ES256, ten keys in turn: {rate:.0}/s");
        drop(backend);
        let begun = Instant::now();
        drop(world.open_as(&how).unwrap());
        println!("{sessions:?} opening and closing: {:?}", begun.elapsed());
    }
}
