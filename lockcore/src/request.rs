//! One request to a backend, bounded in time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Sleep;

use crate::error::{Error, ErrorKind, Result};

/// A request as a backend returns it.
pub(crate) type Request<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// Waits for `request`, but no longer than `limit`. A timer is armed only for a request that is not answered at once.
///
/// `None` when the limit passed. The request is not consumed: whoever owns it may go on with it, or drop it.
pub(crate) async fn answer<T>(request: &mut Request<T>, limit: Duration) -> Option<T> {
    answer_noting(request, limit, &mut false).await
}

/// Like [`answer`], and notes whether the answer had to be waited for.
pub(crate) async fn answer_noting<T>(
    request: &mut Request<T>,
    limit: Duration,
    waited: &mut bool,
) -> Option<T> {
    *waited = false;
    let mut timer = pin!(None::<Sleep>);
    poll_fn(|context| {
        if let Poll::Ready(answer) = request.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        if timer.is_none() {
            *waited = true;
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// Like [`answer`], for a request that nobody goes on with.
pub(crate) async fn bounded<T>(mut request: Request<Result<T>>, limit: Duration) -> Result<T> {
    answer(&mut request, limit).await.unwrap_or_else(|| Err(unanswered(limit)))
}

/// What an unanswered request is to its caller.
pub(crate) fn unanswered(limit: Duration) -> Error {
    Error::new(ErrorKind::Indeterminate, format!("the server did not answer within {limit:?}"))
}
