//! What becomes of jobs: late ones, those that nobody waits for, and what is said of them.

use super::*;
use crate::claims::JTI_BYTES;
use crate::config::Config;
use crate::peer::Proof;
use crate::policy::{Decision, Policy};
use crate::workload::Workload;
use keystore::{PublicKey, Time};
use std::io::Write;
use std::sync::OnceLock;

const CONFIG: &str = r#"
[keystore.hsm]
backend = "pkcs11"
module = "/m.so"
token = { label = "t" }
pin = { credential = "p" }

[workload.payments]
match = { uid = 1 }

[workload.payments.target.bank]
profile = "rfc7523"
authorization_server = "https://as.example"
client_id = "payments"
keystore = "hsm"
"#;

/// RFC 7515 appendix A.3.
const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

pub(crate) type Answer = oneshot::Receiver<Result<String, Error>>;

/// Claims that were granted: there are no others.
fn claims() -> Claims {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    let policy = POLICY.get_or_init(|| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(CONFIG.as_bytes()).unwrap();
        Policy::new(Config::load(file.path()).unwrap().workloads)
    });
    let workload = Workload::for_test(1, 1, None, false, Proof::Pidfd);
    let now = Time::from_unix_s(1_800_000_000);
    let Decision::Allow(grant) = policy.decide(&workload, "bank", None, now) else {
        panic!("denied");
    };
    let key: PublicKey = serde_json::from_str(KEY).unwrap();
    Claims::from_grant(grant, &key, now, [0; JTI_BYTES])
}

pub(crate) fn share(workload: &str) -> Share {
    Share {
        workload: workload.into(),
        weight: 1,
    }
}

/// A job of this workload, and where its answer comes. It came a second ago.
pub(crate) fn job(workload: &str, deadline: Instant) -> (Job, Answer) {
    let (reply, answer) = oneshot::channel();
    let job = Job {
        work: Work::Mint(Mint {
            key: "payments/bank.1".parse().unwrap(),
            purpose: PurposeKind::ClientAuthentication,
            claims: claims(),
            reply,
        }),
        share: share(workload),
        since: Instant::now() - Duration::from_secs(1),
        deadline,
    };
    (job, answer)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn put(queue: &Queue, workload: &str, deadline: Instant) -> Answer {
    let (job, answer) = job(workload, deadline);
    queue.push(job);
    answer
}

/// Runs with one thread until it is over. What waits for nothing has failed.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(20), test).await };
    runtime.block_on(test).expect("it ends")
}

/// Whose the next jobs are.
async fn next(queue: &Queue, count: usize) -> Vec<Arc<str>> {
    let now = Instant::now();
    let mut whose = Vec::new();
    for _ in 0..count {
        whose.push(queue.next(|deadline| deadline > now).await.share.workload);
    }
    whose
}

#[test]
fn what_comes_too_late_is_refused_and_has_used_no_share() {
    run(async {
        let queue = Queue::default();
        let late: Vec<Answer> = (0..5)
            .map(|_| put(&queue, "a", Instant::now() - Duration::from_millis(1)))
            .collect();
        let _in_time = [
            put(&queue, "a", soon()),
            put(&queue, "b", soon()),
            put(&queue, "b", soon()),
        ];
        assert_eq!(next(&queue, 3).await, ["a".into(), "b".into(), "b".into()]);
        for answer in late {
            let error = answer.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.to_string().contains("was not signed"), "{error}");
        }
        assert_eq!(queue.depth(), Depth::default());
    });
}

#[test]
fn who_has_given_up_is_passed_over_and_not_counted() {
    run(async {
        let queue = Queue::default();
        for _ in 0..5 {
            drop(put(&queue, "a", soon()));
        }
        let _last = put(&queue, "a", soon());
        assert_eq!(queue.depth().jobs, 1);
        assert!(queue.depth().oldest >= Duration::from_secs(1));
        assert_eq!(queue.ahead_of(&share("a")), 6);
        queue.tidy();
        assert_eq!(queue.ahead_of(&share("a")), 1);
        drop(put(&queue, "b", soon()));
        let _its = put(&queue, "b", soon());
        assert_eq!(next(&queue, 2).await, ["a".into(), "b".into()]);
        assert_eq!(queue.depth(), Depth::default());
    });
}

/// Behind a keystore that hangs: callers come, give up and come again, and nobody takes a job.
#[test]
fn what_nobody_waits_for_does_not_pile_up() {
    let queue = Queue::default();
    let waiting: Vec<Answer> = (0..300).map(|_| put(&queue, "a", soon())).collect();
    let mut most = 0;
    for _ in 0..10_000 {
        drop(put(&queue, "b", soon()));
        most = most.max(queue.jobs().order.waiting());
    }
    assert!(most > waiting.len(), "none of them was ever in it");
    assert!(most <= 2 * waiting.len(), "{most} jobs");
    assert_eq!(queue.depth().jobs, waiting.len());
    assert_eq!(queue.jobs().tidy_at, 2 * waiting.len(), "the next look");
}

#[test]
fn each_job_that_comes_wakes_one_that_waits_for_it() {
    run(async {
        let queue = Queue::default();
        let lane = || queue.next(|_| true);
        let put_two = async {
            tokio::task::yield_now().await; // both lanes wait by now
            let answers = [put(&queue, "a", soon()), put(&queue, "b", soon())];
            tokio::task::yield_now().await;
            answers
        };
        let (one, other, _answers) = tokio::join!(lane(), lane(), put_two);
        assert_ne!(one.share.workload, other.share.workload);
    });
}
