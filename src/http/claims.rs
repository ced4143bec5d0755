//! Claims: work for a consumer, and what it says of it then.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde_json::value::RawValue;
use tidemill_proto::Problem;
use tidemill_proto::work::{
    ClaimFromRequest, ClaimId, ClaimRequest, ConsumerName, DeliveredRef, RECEIPTS_MAX, Receipt,
    SettleRequest, SettledAll, Work,
};
use utoipa_axum::routes;

use super::body::Received;
use super::called::Called;
use super::counted::Counted;
use super::failure::Problems;
use super::groups::{WAIT_MAX, duration_of, number_of};
use super::handed::{Handed, while_there};
use super::media::APPLICATION_JSON;
use super::path::GroupPath;
use super::routes::{Concern, Needs};
use super::{Http, json, media, query};
use crate::access::Verb;
use crate::link::Hangup;
use crate::relay::{
    CLAIM_MESSAGES_MAX, ClaimOrder, Claimant, Deliveries, EXTENSION, Failure, Gate, NACK_DELAY,
    SettledReceipt, Source, Verdict, as_wire, check_result, parse_group, parse_topic,
};

/// Groups of one claim.
pub(super) const SOURCES_MAX: usize = 20;
/// The largest weight of one of them.
pub(super) const WEIGHT_MAX: u32 = 1_000;
/// Bytes of a message's JSON beside its payload and metadata, about.
const FRAME_BYTES: usize = 480;

pub(super) fn routes(is_on: bool) -> Concern {
    Concern::switched(is_on)
        .route(Needs::Right(Verb::Work), routes!(claim))
        .route(Needs::Right(Verb::Work), routes!(claim_from))
        .route(Needs::Right(Verb::Work), routes!(ack))
        .route(Needs::Right(Verb::Work), routes!(nack))
        .route(Needs::Right(Verb::Work), routes!(extend))
        .route(Needs::Right(Verb::Work), routes!(reject))
        .route(Needs::Right(Verb::Work), routes!(release))
}

/// Claim messages
///
/// Each comes with a `receipt`, which settles it, and a `deadline`: until then nobody else gets it. Where there is
/// nothing, the answer comes when there is, or after `wait`. A claim whose answer was lost is repeated with the same
/// `claim_id`: it returns the same messages.
#[utoipa::path(
    post, path = "/api/v1/topics/{topic}/groups/{group}/claim", tag = "work", operation_id = "claim",
    params(
        ("topic" = String, Path, description = "The name of the topic"),
        ("group" = String, Path, description = "The name of the group"),
    ),
    request_body = ClaimRequest,
    responses((status = 200, body = Work), Problems),
)]
pub(super) async fn claim(
    State(http): State<Http>,
    Called(gate): Called,
    GroupPath(topic, group): GroupPath,
    request: Request,
) -> Result<Response, Failure> {
    let hangup = request.extensions().get::<Hangup>().cloned();
    let body = receive(&http, &gate, request).await?;
    let [consumer, max, wait, claim_id]: [Option<&RawValue>; 4] =
        json::fields(&body.bytes, ["consumer", "max", "wait", "claim_id"])?;
    let (consumer, max, wait) = (read_consumer(consumer)?, read_max(max)?, read_wait(wait)?);
    let claim_id = match json::optional(claim_id) {
        None => None,
        Some(raw) => {
            let id = ClaimId::parse(&json::string("claim_id", raw)?);
            Some(id.map_err(|error| Problem::field("claim_id", error))?)
        }
    };
    drop(body);
    let claim = gate.claim(&topic, &group, Claimant::of(&consumer, max), wait, claim_id);
    let claimed = while_there(hangup.as_ref(), claim).await?;
    answer(&http, claimed, hangup)
}

/// Claim messages of several groups
///
/// `strict` takes from each group only what those before it do not have; `weighted` from each its part, so that none
/// starves.
#[utoipa::path(
    post, path = "/api/v1/work/claim", tag = "work", operation_id = "claim_from",
    request_body = ClaimFromRequest,
    responses((status = 200, body = Work), Problems),
)]
pub(super) async fn claim_from(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Response, Failure> {
    let hangup = request.extensions().get::<Hangup>().cloned();
    let body = receive(&http, &gate, request).await?;
    let [consumer, from, order, max, wait]: [Option<&RawValue>; 5] =
        json::fields(&body.bytes, ["consumer", "from", "order", "max", "wait"])?;
    let (consumer, max, wait) = (read_consumer(consumer)?, read_max(max)?, read_wait(wait)?);
    let order = match json::optional(order).map(RawValue::get) {
        None | Some("\"weighted\"") => ClaimOrder::Weighted,
        Some("\"strict\"") => ClaimOrder::Strict,
        Some(_) => return Err(Problem::field("order", "must be `strict` or `weighted`").into()),
    };
    let from = json::optional(from).ok_or_else(|| json::missing("from"))?;
    let sources = read_sources(from)?;
    drop(body);
    let claim = gate.claim_from(&sources, order, Claimant::of(&consumer, max), wait);
    let claimed = while_there(hangup.as_ref(), claim).await?;
    answer(&http, claimed, hangup)
}

/// Acknowledge messages
///
/// They are done. A `result`, any JSON value, is kept with each for as long as its group says.
#[utoipa::path(
    post, path = "/api/v1/work/ack", tag = "work", operation_id = "ack",
    request_body = SettleRequest,
    responses((status = 200, body = SettledAll), Problems),
)]
pub(super) async fn ack(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<SettledAll>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [receipts, result]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["receipts", "result"])?;
    let result = json::optional(result).map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    settle(&http, &gate, receipts, &Verdict::Ack(check_result(result)?)).await
}

/// Say that messages have failed
///
/// They come again after `delay`, or by their group's backoff; after as many failures as the group allows they are
/// dead letters.
#[utoipa::path(
    post, path = "/api/v1/work/nack", tag = "work", operation_id = "nack",
    request_body = SettleRequest,
    responses((status = 200, body = SettledAll), Problems),
)]
pub(super) async fn nack(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<SettledAll>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [receipts, delay, error]: [Option<&RawValue>; 3] =
        json::fields(&body.bytes, ["receipts", "delay", "error"])?;
    let delay = duration_of("delay", delay, NACK_DELAY)?;
    let error = json::optional(error).map(|raw| json::string("error", raw)).transpose()?;
    let error = error.filter(|error| !error.is_empty());
    settle(&http, &gate, receipts, &Verdict::Nack(delay, error.map(Into::into))).await
}

/// Go on with messages
///
/// Their consumer has them for the group's time from now on, or for `ack_wait`, and has begun with them.
#[utoipa::path(
    post, path = "/api/v1/work/extend", tag = "work", operation_id = "extend",
    request_body = SettleRequest,
    responses((status = 200, body = SettledAll), Problems),
)]
pub(super) async fn extend(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<SettledAll>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [receipts, ack_wait]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["receipts", "ack_wait"])?;
    let ack_wait = duration_of("ack_wait", ack_wait, EXTENSION)?;
    settle(&http, &gate, receipts, &Verdict::Extend(ack_wait)).await
}

/// Make messages dead letters
#[utoipa::path(
    post, path = "/api/v1/work/reject", tag = "work", operation_id = "reject",
    request_body = SettleRequest,
    responses((status = 200, body = SettledAll), Problems),
)]
pub(super) async fn reject(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<SettledAll>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [receipts, reason]: [Option<&RawValue>; 2] = json::fields(&body.bytes, ["receipts", "reason"])?;
    let reason = json::optional(reason).ok_or_else(|| json::missing("reason"))?;
    let reason = json::string("reason", reason)?;
    settle(&http, &gate, receipts, &Verdict::Reject(reason.into())).await
}

/// Give messages back
///
/// They can be claimed at once, and have not failed.
#[utoipa::path(
    post, path = "/api/v1/work/release", tag = "work", operation_id = "release",
    request_body = SettleRequest,
    responses((status = 200, body = SettledAll), Problems),
)]
pub(super) async fn release(
    State(http): State<Http>,
    Called(gate): Called,
    request: Request,
) -> Result<Json<SettledAll>, Failure> {
    let body = receive(&http, &gate, request).await?;
    let [receipts]: [Option<&RawValue>; 1] = json::fields(&body.bytes, ["receipts"])?;
    settle(&http, &gate, receipts, &Verdict::Release).await
}

async fn settle(
    http: &Http,
    gate: &Gate,
    receipts: Option<&RawValue>,
    verdict: &Verdict,
) -> Result<Json<SettledAll>, Failure> {
    let receipts = json::optional(receipts).ok_or_else(|| json::missing("receipts"))?;
    let texts = json::strings("receipts", receipts)?;
    if texts.is_empty() || texts.len() > RECEIPTS_MAX {
        return Err(Problem::field("receipts", format_args!("must be 1 to {RECEIPTS_MAX} receipts")).into());
    }
    let receipts = texts.into_iter().map(|text| SettledReceipt {
        receipt: Receipt::parse(&text).ok(),
        text: text.into(),
        verdict: verdict.clone(),
    });
    let results = gate.settle(receipts.collect()).await?;
    for settled in &results {
        http.0.metrics.work().settled(settled.status);
    }
    Ok(Json(SettledAll { results }))
}

/// Reads the body of a request of a consumer, unless its caller can be none.
async fn receive(http: &Http, gate: &Gate, request: Request) -> Result<Received, Failure> {
    let (head, body) = request.into_parts();
    let [] = query::parameters(&head.uri, [])?;
    media::require_json(&head.headers)?;
    gate.check_some_topic(Verb::Work)?;
    http.0.budget.receive(&head.headers, body, http.work_limit()).await
}

fn read_consumer(raw: Option<&RawValue>) -> Result<ConsumerName, Failure> {
    let raw = json::optional(raw).ok_or_else(|| json::missing("consumer"))?;
    let name = ConsumerName::parse(&json::string("consumer", raw)?);
    name.map_err(|error| Problem::field("consumer", error).into())
}

fn read_max(raw: Option<&RawValue>) -> Result<usize, Failure> {
    let max = number_of("max", raw, u32::try_from(CLAIM_MESSAGES_MAX).unwrap_or(u32::MAX))?;
    Ok(usize::try_from(max.unwrap_or(1)).unwrap_or(1))
}

fn read_wait(raw: Option<&RawValue>) -> Result<Duration, Failure> {
    Ok(duration_of("wait", raw, [Duration::ZERO, WAIT_MAX])?.unwrap_or_default())
}

fn read_sources(raw: &RawValue) -> Result<Vec<Source>, Failure> {
    let rule = || {
        let rule = format!("must be a list of 1 to {SOURCES_MAX} objects `{{topic, group, weight}}`");
        Failure::from(Problem::field("from", rule))
    };
    let list: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| rule())?;
    if list.is_empty() || list.len() > SOURCES_MAX {
        return Err(rule());
    }
    let mut sources: Vec<Source> = Vec::with_capacity(list.len());
    for raw in list {
        if !raw.get().starts_with('{') {
            return Err(rule());
        }
        let [topic, group, weight]: [Option<&RawValue>; 3] =
            json::fields(raw.get().as_bytes(), ["topic", "group", "weight"])?;
        let topic = json::optional(topic).ok_or_else(|| json::missing("topic"))?;
        let group = json::optional(group).ok_or_else(|| json::missing("group"))?;
        let source = Source {
            topic: parse_topic("topic", &json::string("topic", topic)?)?,
            group: parse_group(&json::string("group", group)?)?,
            weight: number_of("weight", weight, WEIGHT_MAX)?.unwrap_or(1),
        };
        if sources.iter().any(|other| other.topic == source.topic && other.group == source.group) {
            return Err(Problem::field("from", "names a group twice").into());
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Writes what was claimed. What does not get to the client is given back.
fn answer(http: &Http, claimed: Deliveries, hangup: Option<Hangup>) -> Result<Response, Failure> {
    http.0.metrics.messages().served(claimed.count());
    for delivery in claimed.of.iter().flat_map(|of| &of.deliveries) {
        http.0.metrics.work().claimed(delivery.delivery);
    }
    let text = http.0.budget.charge(claimed.len_bytes(), || write(&claimed))?;
    let body = Body::new(Handed::new(text, claimed, hangup));
    Ok((StatusCode::OK, [(CONTENT_TYPE, APPLICATION_JSON)], Extension(Counted), body).into_response())
}

fn write(claimed: &Deliveries) -> Vec<u8> {
    let mut out = Vec::with_capacity(claimed.len_bytes() + claimed.count() * FRAME_BYTES + 32);
    out.extend_from_slice(br#"{"messages":["#);
    let mut is_first = true;
    for of in &claimed.of {
        for delivery in &of.deliveries {
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            let message = as_wire(&of.topic, &delivery.message);
            let receipt = of.receipt(delivery);
            let (deadline, cancelled) = (delivery.deadline, of.cancelled.as_deref());
            DeliveredRef { message, receipt: &receipt, deadline, cancelled }.write_json(&mut out);
        }
    }
    out.extend_from_slice(b"]}");
    out
}
