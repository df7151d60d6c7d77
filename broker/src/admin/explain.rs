//! `POST /v1/explain`: why a denial was one, or what a process that runs now would get. Grants
//! nothing and records nothing; what it finds out is for administrators alone.

use super::body;
use crate::app::App;
use crate::attestation::{self, Unknown};
use crate::denylist::Hit;
use crate::http::object;
use crate::peer::{NoPeer, Peer};
use crate::policy::{Explanation, Judged, SectionVerdict, Standing};
use crate::recent::Denied;
use crate::reply::{self, Answer, Refusal};
use crate::rules::Rules;
use crate::selector::Verdict;
use crate::workload::Workload;
use assertd_client::api::{ExplainRequest, Explained, ExplainedSection, ExplainedSelector};
use hyper::Request;
use hyper::body::Incoming;
use keystore::Time;

/// Answers it.
pub async fn explain(app: &App, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let asked: ExplainRequest = object(&body(request).await?)?;
    let rules = app.rules.now();
    let now = app.clock.read();
    match asked {
        ExplainRequest::Id { id } => {
            let denied = app.recent.find(&id).ok_or(Refusal::NotRemembered)?;
            let hit = rules.denied.hit(&denied.workload);
            Ok(reply::ok(&of_denial(&rules, hit, &denied)))
        }
        ExplainRequest::Process { pid, target } => {
            let peer = Peer::by_pid(pid).map_err(|why| match why {
                NoPeer::Gone => Refusal::NoProcess(format!("there is no process {pid}")),
                why => Refusal::NoProcess(format!("process {pid}: {why}")),
            })?;
            let attested = attestation::attest(app, &rules, &peer, Some(&target)).await;
            let workload = attested.map_err(|unknown| match unknown {
                Unknown::Unattested(why) => Refusal::NoProcess(format!("process {pid}: {why}")),
                Unknown::NoWitness(why) => Refusal::unavailable("witness_unavailable", why),
            })?;
            let hit = rules.denied.hit(&workload);
            Ok(reply::ok(&explained(&rules, hit, &workload, &target, now)))
        }
    }
}

/// A denial is looked at under the rules of now: if it would be granted, they have changed since.
fn of_denial(rules: &Rules, hit: Option<Hit>, denied: &Denied) -> Explained {
    Explained {
        denied_at: Some(denied.at.unix_s()),
        recorded_reason: Some(denied.reason.to_owned()),
        ..explained(rules, hit, &denied.workload, &denied.target, denied.at)
    }
}

fn explained(
    rules: &Rules,
    hit: Option<Hit>,
    workload: &Workload,
    target: &str,
    now: Time,
) -> Explained {
    let Explanation {
        denial,
        sections,
        more,
    } = rules.policy.explain(workload, target, now);
    Explained {
        target: target.to_owned(),
        uid: workload.uid(),
        gid: workload.gid(),
        pid: workload.pid(),
        unit: workload.unit().map(|unit| unit.path().to_owned()),
        config_sha256: rules.config.sha256.to_string(),
        denied_at: None,
        recorded_reason: None,
        reason: match (denial, hit) {
            (Some(denial), _) => Some(denial.reason().to_owned()),
            (None, hit) => hit.map(|hit| hit.reason().to_owned()),
        },
        sections: sections.iter().map(section).collect(),
        more,
    }
}

fn section(verdict: &SectionVerdict) -> ExplainedSection {
    ExplainedSection {
        workload: verdict.name.to_string(),
        place: verdict.place.to_string(),
        standing: match verdict.standing {
            Standing::Matches => "matches",
            Standing::DoesNotMatch => "does_not_match",
            Standing::Excluded => "excluded",
        }
        .to_owned(),
        matches: verdict.matches.iter().map(selector).collect(),
        unless: verdict.unless.iter().map(selector).collect(),
        shadow: verdict.shadow.iter().map(selector).collect(),
    }
}

fn selector(judged: &Judged) -> ExplainedSelector {
    ExplainedSelector {
        selector: judged.key.to_owned(),
        wanted: judged.wanted.clone(),
        found: judged.found.clone(),
        verdict: match judged.verdict {
            Verdict::Holds => "holds",
            Verdict::Fails => "fails",
            Verdict::Unknown => "unknown",
        }
        .to_owned(),
    }
}
