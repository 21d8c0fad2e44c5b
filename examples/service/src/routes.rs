//! The endpoints.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::answer::{Refusal, json};
use crate::batcher::{Acknowledge, RankJob, Work};
use crate::log::LATEST;
use crate::metrics::{Gauges, Metrics};
use crate::model::Model;
use crate::store::{NewEvent, Store};
use crate::writer::Task;

/// What requests may ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) body: usize,
    pub(crate) candidates: usize,
    pub(crate) events: usize,
    /// Requests that wait, of each kind.
    pub(crate) queue: usize,
    /// For a body to come, and for an answer to be made.
    pub(crate) timeout: Duration,
}

/// What the endpoints share.
pub(crate) struct App {
    pub(crate) model: Arc<Model>,
    /// Items by falling number of users.
    pub(crate) popular: Vec<u32>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) work: Sender<Work>,
    pub(crate) writer: Sender<Task>,
    pub(crate) rank_queue: Arc<Semaphore>,
    pub(crate) event_queue: Arc<Semaphore>,
    pub(crate) device: String,
}

type Shared = State<Arc<App>>;
type Answer = Result<Response, Refusal>;

/// All endpoints.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("page.html")) }))
        .route("/events", post(events))
        .route("/rank", post(rank))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/users", get(users))
        .route("/users/{user}", get(user))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|method: Method| async move {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for this path"))
        })
        .layer(from_fn_with_state(app.clone(), measure))
        .with_state(app)
}

/// Counts and times every answer.
async fn measure(State(app): Shared, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    app.metrics.answered(
        route.as_ref().map(MatchedPath::as_str),
        response.status().as_u16(),
        begin.elapsed(),
    );
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankRequest {
    user: u64,
    candidates: Vec<u64>,
    top: Option<usize>,
}

#[derive(Serialize)]
struct Scored {
    item: u64,
    score: f32,
}

#[derive(Serialize)]
struct Ranked {
    user: u64,
    ranked: Vec<Scored>,
}

async fn rank(State(app): Shared, request: Request) -> Answer {
    let RankRequest { user, candidates, top } = parse(&app, request).await?;
    if candidates.is_empty() || candidates.len() > app.limits.candidates {
        let (most, got) = (app.limits.candidates, candidates.len());
        return Err(Refusal::bad(format!("expected 1 to {most} candidates, got {got}")));
    }
    if top == Some(0) {
        return Err(Refusal::bad("expected a top of at least 1, got 0"));
    }
    let items = candidates.iter().map(|&id| number(&app, id)).collect::<Result<Vec<u32>, Refusal>>()?;
    let (reply, answer) = oneshot::channel();
    let place = place(&app.rank_queue)?;
    let job = RankJob { user, items, reply, place };
    app.work.send(Work::Rank(job)).map_err(|_| Refusal::busy("the service is stopping"))?;
    let scores = wait(&app, answer).await?;
    let scored = candidates.into_iter().zip(scores).map(|(item, score)| Scored { item, score });
    let mut ranked: Vec<Scored> = scored.collect();
    // Ties stay in the order of the request.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked.truncate(top.unwrap_or(usize::MAX));
    json(&Ranked { user, ranked })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventRequest {
    user: u64,
    item: u64,
    time: Option<u64>,
}

async fn events(State(app): Shared, request: Request) -> Answer {
    let requests: Vec<EventRequest> = parse(&app, request).await?;
    if requests.is_empty() || requests.len() > app.limits.events {
        let (most, got) = (app.limits.events, requests.len());
        return Err(Refusal::bad(format!("expected 1 to {most} events, got {got}")));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let event = |request: EventRequest| -> Result<NewEvent, Refusal> {
        let EventRequest { user, item: id, time } = request;
        if let Some(time) = time.filter(|&time| time > LATEST) {
            return Err(Refusal::bad(format!("expected a time of up to {LATEST} seconds, got {time}")));
        }
        Ok(NewEvent { user, item: number(&app, id)?, time: time.unwrap_or(now) })
    };
    let events = requests.into_iter().map(event).collect::<Result<Vec<NewEvent>, Refusal>>()?;
    let count = events.len();
    let (reply, answer) = oneshot::channel();
    let acknowledge = Acknowledge { reply, place: place(&app.event_queue)? };
    let sent = app.writer.send(Task::Events(events, acknowledge));
    sent.map_err(|_| Refusal::busy("the service is stopping"))?;
    wait(&app, answer).await?;
    json(&serde_json::json!({ "written": count }))
}

/// A place in a queue.
fn place(queue: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    queue.clone().try_acquire_owned().map_err(|_| Refusal::busy("too many requests wait"))
}

/// The number of an item's row.
fn number(app: &App, id: u64) -> Result<u32, Refusal> {
    app.model.number(id).ok_or_else(|| Refusal::bad(format!("there is no item {id}")))
}

/// Waits for one of the threads.
async fn wait<T>(app: &App, answer: oneshot::Receiver<Result<T, String>>) -> Result<T, Refusal> {
    match tokio::time::timeout(app.limits.timeout, answer).await {
        Ok(Ok(answer)) => answer.map_err(Refusal::failed),
        Ok(Err(_)) => Err(Refusal::busy("the service is stopping")),
        Err(_) => Err(Refusal::busy("there was no answer in time")),
    }
}

/// The body as JSON.
async fn parse<T: for<'de> Deserialize<'de>>(app: &App, request: Request) -> Result<T, Refusal> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    let reading = read(request.into_body(), app.limits.body, length);
    let body = tokio::time::timeout(app.limits.timeout, reading).await;
    let body =
        body.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    serde_json::from_slice(&body).map_err(|error| Refusal::bad(format!("expected JSON: {error}")))
}

/// A body of up to `most` bytes. What is a little longer is read to its end, so that the client has sent it before it is answered.
async fn read(mut body: Body, most: usize, length: usize) -> Result<Vec<u8>, Refusal> {
    let patience = most.saturating_mul(4);
    let (mut bytes, mut got) = (Vec::new(), 0_usize);
    while length <= patience && got <= patience {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Refusal::bad(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        got += data.len();
        if got <= most {
            bytes.extend_from_slice(&data);
        }
    }
    if length.max(got) > most {
        let words = format!("expected a body of up to {most} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words));
    }
    Ok(bytes)
}

/// Runs something that reads the store where it may block.
async fn reading<T: Send + 'static>(
    app: Arc<App>,
    read: impl FnOnce(&App) -> crate::Outcome<T> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(move || read(&app).map_err(Refusal::failed)).await;
    done.map_err(Refusal::failed)?
}

async fn health(State(app): Shared) -> Answer {
    let (users, events) = reading(app.clone(), |app| app.store.totals()).await?;
    json(&serde_json::json!({
        "status": "ok", "device": app.device, "items": app.model.items.len(), "users": users, "events": events,
    }))
}

async fn metrics(State(app): Shared) -> Answer {
    let waiting = |queue: &Semaphore| app.limits.queue.saturating_sub(queue.available_permits());
    let queues = [("rank", waiting(&app.rank_queue)), ("events", waiting(&app.event_queue))];
    let text = app.metrics.text(&Gauges { queues }).map_err(Refusal::failed)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The most users of the list.
const LISTED: usize = 1000;

async fn users(State(app): Shared) -> Answer {
    let users = reading(app, |app| app.store.users(LISTED)).await?;
    let entry = |(user, events): &(u64, u64)| serde_json::json!({ "user": user, "events": events });
    json(&users.iter().map(entry).collect::<Vec<_>>())
}

/// How many of the newest behaviours are shown, and how many candidates are proposed.
const SHOWN: usize = 100;

#[derive(Serialize)]
struct Shown<'a> {
    item: u64,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<u64>,
}

async fn user(State(app): Shared, path: Result<Path<String>, PathRejection>) -> Answer {
    let Path(text) = path.map_err(|error| Refusal::bad(error.body_text()))?;
    let user: u64 = text
        .parse()
        .map_err(|_| Refusal::bad(format!("expected a whole number for the user, got {text:?}")))?;
    let events = reading(app.clone(), move |app| app.store.events(user, 0)).await?;
    let shown = |item: u32, time: Option<u64>| {
        let item = app.model.items.get(item as usize);
        item.map(|item| Shown { item: item.id, title: &item.title, time })
    };
    let seen: std::collections::HashSet<u32> = events.iter().map(|event| event.0).collect();
    let newest: Vec<Shown<'_>> =
        events.iter().rev().take(SHOWN).filter_map(|&(item, time)| shown(item, Some(time))).collect();
    let unseen = app.popular.iter().filter(|item| !seen.contains(item)).take(SHOWN);
    let candidates: Vec<Shown<'_>> = unseen.filter_map(|&item| shown(item, None)).collect();
    json(&serde_json::json!({
        "user": user, "events": events.len(), "newest": newest, "candidates": candidates,
    }))
}
