//! An axum router as a facade, for listeners that speak JSON.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, Response, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::{Facade, InBody, Refusal};
use crate::telemetry::RequestContext;

/// How a protocol shapes the listener's refusal of a request for a path.
pub type Refuse = fn(&RequestContext, &str, Refusal) -> Response<Body>;

/// Serves an [`axum::Router`] under the limits of a [`super::Server`].
#[derive(Debug, Clone)]
pub struct RouterFacade {
    operation: &'static str,
    refuse: Refuse,
    service: TowerToHyperService<Router>,
}

impl RouterFacade {
    /// `operation` names the requests in log and metrics unless a handler does.
    pub fn new(operation: &'static str, router: Router) -> Self {
        Self {
            operation,
            refuse: plain,
            service: TowerToHyperService::new(router),
        }
    }

    /// Refuses in the shape of another protocol.
    #[must_use]
    pub fn refusing_as(self, refuse: Refuse) -> Self {
        Self { refuse, ..self }
    }
}

impl Facade for RouterFacade {
    type Body = Body;

    async fn call(&self, request: Request<InBody>) -> Response<Body> {
        let context = request.extensions().get::<Arc<RequestContext>>().cloned();
        let answer: Result<_, Infallible> = self.service.call(request.map(Body::new)).await;
        if let Some(context) = context {
            context.set_operation(self.operation);
        }
        match answer {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn refuse(&self, context: &RequestContext, path: &str, refusal: Refusal) -> Response<Body> {
        context.set_operation(self.operation);
        (self.refuse)(context, path, refusal)
    }
}

fn plain(_: &RequestContext, _: &str, refusal: Refusal) -> Response<Body> {
    let (status, text) = match refusal {
        Refusal::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "too many requests"),
        Refusal::HeadersTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers too large",
        ),
        Refusal::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body too large"),
        Refusal::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "internal error"),
    };
    (status, text).into_response()
}
