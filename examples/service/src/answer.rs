//! Answers: JSON, and for errors `{"error": "words"}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    words: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }

    /// What the client sent is not what was expected.
    pub(crate) fn bad(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    /// Later it may work.
    pub(crate) fn busy(words: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, words)
    }

    /// Nothing that the client could change.
    pub(crate) fn failed(words: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, words.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.words }).to_string();
        let response = (self.status, [(header::CONTENT_TYPE, "application/json")], body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            return ([(header::RETRY_AFTER, "1")], response).into_response();
        }
        response.into_response()
    }
}

/// An answer as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(value).map_err(Refusal::failed)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
