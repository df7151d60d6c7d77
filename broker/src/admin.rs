//! The administrators' requests: status, keys, reload, and the news that a key has been made. Peers
//! are root or assertd's own uid; status, keys and grants tell what policy is, so nobody else may ask.

use crate::app::App;
use crate::peer::Peer;
use crate::reply::{self, Answer, Refusal};
use crate::rules;
use crate::terms;
use assertd_client::api::{
    ATTEST_PATH, BODY_LEN_MAX, EXPLAIN_PATH, GRANTS_PATH, KEY_VERB_PATH, KEYS_PATH, RELOAD_PATH,
    STATUS_PATH,
};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use std::sync::Arc;

mod attest;
mod explain;
mod keys;
mod status;
mod verb;

use crate::http::BODY_DEADLINE;

/// Answers one request of an administrator.
pub async fn answer(app: Arc<App>, peer: Arc<Peer>, request: Request<Incoming>) -> Answer {
    let id = app.request_id();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let result = match (&method, path.as_str()) {
        _ if !is_admin(&peer) => Err(Refusal::NotAdmin),
        (&Method::GET, STATUS_PATH) => Ok(reply::ok(&status::status(&app).await)),
        (&Method::GET, KEYS_PATH) => Ok(reply::ok(&keys::keys(&app))),
        (&Method::GET, GRANTS_PATH) => Ok(reply::ok(&terms::grants(&app.rules.now().config))),
        (&Method::POST, KEYS_PATH) => keys::adopt(&app, request).await,
        (&Method::POST, KEY_VERB_PATH) => verb::ask(&app, request).await,
        (&Method::POST, ATTEST_PATH) => attest::ask(&app, peer.uid(), request).await,
        (&Method::POST, RELOAD_PATH) => reload(&app, request).await,
        (&Method::POST, EXPLAIN_PATH) => explain::explain(&app, request).await,
        (_, STATUS_PATH | KEYS_PATH | KEY_VERB_PATH | ATTEST_PATH) => Err(Refusal::Method),
        (_, RELOAD_PATH | EXPLAIN_PATH | GRANTS_PATH) => Err(Refusal::Method),
        _ => Err(Refusal::Path),
    };
    result.unwrap_or_else(|refusal| reply::problem(&refusal, id.as_str()))
}

fn is_admin(peer: &Peer) -> bool {
    peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw()
}

/// Reads the configuration again. The answer is the verdict.
async fn reload(app: &Arc<App>, request: Request<Incoming>) -> Result<Answer, Refusal> {
    body(request).await?; // none, or an empty object of a client that sends one with every POST
    let rules = rules::reload(app).await?;
    Ok(reply::ok(&status::of_config(&rules.config)))
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.into_body(), BODY_LEN_MAX).collect();
    let collected = tokio::time::timeout(BODY_DEADLINE, body)
        .await
        .map_err(|_| Refusal::BodyTimeout)?
        .map_err(|_| Refusal::BodyTooLong)?;
    Ok(collected.to_bytes())
}
