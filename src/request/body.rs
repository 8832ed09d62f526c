//! Which bodies can be sent twice, and how: by cloning, or by recording them while they are sent.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{Empty, Full};

/// How bodies of type `B` are sent twice.
pub(crate) enum ReplayVtable<B: Body> {
    /// By a clone, made before the first sending.
    Clone(fn(&B) -> B),
    /// The same where not every body can be cloned.
    TryClone(fn(&B) -> Option<B>),
    /// By recording what the first sending reads. `erase` makes a `B` of the recording.
    Record { record: Record<B>, erase: Erase<B> },
}

type Record<B> = fn(B, Erase<B>, usize) -> (B, Option<BodyCopy<B>>);
type Erase<B> = fn(Recorded<B>) -> B;

impl<B: Body> Copy for ReplayVtable<B> {}

impl<B: Body> Clone for ReplayVtable<B> {
    fn clone(&self) -> Self {
        *self
    }
}

#[cfg(feature = "reqwest")]
impl<B: Body> ReplayVtable<B> {
    /// Splits a body into the one to send and what is kept of it.
    pub(crate) fn copy_for_replay(self, body: B, cap: usize) -> (B, Option<BodyCopy<B>>) {
        match self {
            ReplayVtable::Clone(clone) => {
                let copy = clone(&body);
                (body, Some(BodyCopy::Ready(copy)))
            }
            ReplayVtable::TryClone(try_clone) => {
                let copy = try_clone(&body).map(BodyCopy::Ready);
                (body, copy)
            }
            ReplayVtable::Record { record, erase } => record(body, erase, cap),
        }
    }
}

/// How bodies of type `B` are sent twice, if this crate knows the type. Folds to a constant when optimised.
#[inline]
pub(crate) fn vtable_of<B>() -> Option<ReplayVtable<B>>
where
    B: Body + 'static,
    B::Error: Send,
{
    let vtable = same_type(clone_vtable::<Full<Bytes>>())
        .or_else(|| same_type(clone_vtable::<Empty<Bytes>>()))
        .or_else(|| same_type(clone_vtable::<String>()))
        .or_else(|| same_type(clone_vtable::<Full<&'static [u8]>>()))
        .or_else(|| same_type(record_vtable::<BoxBody<Bytes, B::Error>>(BoxBody::new)))
        .or_else(|| same_type(record_vtable::<UnsyncBoxBody<Bytes, B::Error>>(UnsyncBoxBody::new)));
    #[cfg(feature = "tonic")]
    let vtable = vtable.or_else(|| same_type(record_vtable::<tonic::body::Body>(tonic::body::Body::new)));
    #[cfg(feature = "axum")]
    let vtable = vtable.or_else(|| same_type(record_vtable::<axum_core::body::Body>(axum_core::body::Body::new)));
    #[cfg(feature = "reqwest")]
    let vtable =
        vtable.or_else(|| same_type(ReplayVtable::Record { record: record_reqwest, erase: reqwest::Body::wrap }));
    vtable
}

/// Bodies whose clone is the same body: unread, and cheap to clone.
pub(crate) fn clone_vtable<B: Body + Clone>() -> ReplayVtable<B> {
    ReplayVtable::Clone(B::clone)
}

/// Type-erased bodies, which can hold a [`Recorded`] of themselves.
pub(crate) fn record_vtable<B: Body<Data = Bytes> + Unpin>(erase: fn(Recorded<B>) -> B) -> ReplayVtable<B> {
    ReplayVtable::Record { record: record::<B>, erase }
}

/// Whether a type that is not known has the name of one that is: it comes from another version of its crate, or the feature
/// that makes it known is off.
pub(crate) fn is_known_by_name(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "tonic::body::Body",
        "axum_core::body::Body",
        "reqwest::async_impl::body::Body",
        "http_body_util::full::Full<bytes::bytes::Bytes>",
        "http_body_util::combinators::box_body::BoxBody<bytes::bytes::Bytes,",
        "http_body_util::combinators::box_body::UnsyncBoxBody<bytes::bytes::Bytes,",
    ];
    NAMES.iter().any(|known| name == *known || known.ends_with(',') && name.starts_with(known))
}

#[inline]
fn same_type<A: Body + 'static, B: Body + 'static>(vtable: ReplayVtable<A>) -> Option<ReplayVtable<B>> {
    (&vtable as &dyn Any).downcast_ref::<ReplayVtable<B>>().copied()
}

/// The body types that users told of, beside those this crate knows.
#[derive(Clone, Default)]
pub(crate) struct Registry(Option<Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>>);

impl Registry {
    pub(crate) fn insert<B: Body + 'static>(&mut self, vtable: ReplayVtable<B>) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(TypeId::of::<B>(), Arc::new(vtable));
    }

    #[inline]
    pub(crate) fn vtable_of<B>(&self) -> Option<ReplayVtable<B>>
    where
        B: Body + 'static,
        B::Error: Send,
    {
        vtable_of().or_else(|| self.0.as_ref()?.get(&TypeId::of::<B>())?.downcast_ref().copied())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.as_ref().map_or(0, |known| known.len())).finish()
    }
}

/// The body of the second sending, or the way to it.
pub(crate) enum BodyCopy<B: Body> {
    Ready(B),
    Empty(Erase<B>),
    Tape(Arc<Mutex<Tape<B>>>),
}

impl<B: Body> BodyCopy<B> {
    /// Whether [`rebuild`](BodyCopy::rebuild) gives a body by now.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            BodyCopy::Ready(_) | BodyCopy::Empty(_) => true,
            BodyCopy::Tape(tape) => matches!(lock(tape).other_half, OtherHalf::Returned(_) | OtherHalf::Ended),
        }
    }

    /// `None` if the first sending still reads the body, or was not recorded to its end.
    pub(crate) fn rebuild(self) -> Option<B> {
        match self {
            BodyCopy::Ready(body) => Some(body),
            BodyCopy::Empty(erase) => {
                Some(erase(Recorded { play: Frames::default(), hint: SizeHint::with_exact(0), rest: Rest::End }))
            }
            BodyCopy::Tape(tape) => {
                let Tape { frames, hint, erase, other_half, .. } = lock(&tape).take();
                let rest = match other_half {
                    OtherHalf::Returned(body) => Rest::Body(body),
                    OtherHalf::Ended => Rest::End,
                    OtherHalf::Sending | OtherHalf::Lost => return None,
                };
                Some(erase(Recorded { play: frames, hint, rest }))
            }
        }
    }
}

/// Takes over what `body` has ready, up to `cap` bytes, and records the rest as it is read.
///
/// Most bodies are ready as a whole, and then both sendings have all of it whatever the transport does; a body that is
/// recorded only as it streams is of no use while the transport has not read or dropped it.
fn record<B: Body<Data = Bytes> + Unpin>(mut body: B, erase: Erase<B>, cap: usize) -> (B, Option<BodyCopy<B>>) {
    let hint = body.size_hint();
    if body.is_end_stream() && hint.exact() == Some(0) {
        return (body, Some(BodyCopy::Empty(erase)));
    }
    if usize::try_from(hint.lower()).map_or(true, |lower| lower > cap) {
        return (body, None);
    }
    // A body may need the runtime (a timer in it does): outside of one it is not touched before it is sent.
    let may_poll = tokio::runtime::Handle::try_current().is_ok();
    let mut context = Context::from_waker(Waker::noop());
    let (mut play, mut frames) = (Frames::default(), Frames::default());
    loop {
        let polled = if may_poll { Pin::new(&mut body).poll_frame(&mut context) } else { Poll::Pending };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let recorded = frames.record(&frame, cap);
                play.push(frame);
                if !recorded {
                    return (erase(Recorded { play, hint, rest: Rest::Body(body) }), None);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                return (erase(Recorded { play, hint, rest: Rest::Error(Mutex::new(Some(error))) }), None);
            }
            Poll::Ready(None) => {
                let [first, second] = [play, frames].map(|play| erase(Recorded { play, hint, rest: Rest::End }));
                return (first, Some(BodyCopy::Ready(second)));
            }
            Poll::Pending => {
                let tape = Tape { frames, cap, hint, erase, other_half: OtherHalf::Sending };
                let tape = Arc::new(Mutex::new(tape));
                let rest = Rest::Tee(body, Arc::downgrade(&tape));
                return (erase(Recorded { play, hint, rest }), Some(BodyCopy::Tape(tape)));
            }
        }
    }
}

/// A body that is one buffer stays one: reqwest can clone it where it follows a redirect itself.
#[cfg(feature = "reqwest")]
fn record_reqwest(
    mut body: reqwest::Body,
    erase: Erase<reqwest::Body>,
    cap: usize,
) -> (reqwest::Body, Option<BodyCopy<reqwest::Body>>) {
    if body.as_bytes().is_none() {
        return record(body, erase, cap);
    }
    let buffer = match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
        _ => Bytes::new(),
    };
    (buffer.clone().into(), Some(BodyCopy::Ready(buffer.into())))
}

/// A request body that can be sent again: what [`replay_recorded`](crate::AuthLayer::replay_recorded) turns a
/// type-erased body `B` into before it is sent.
///
/// What the body has ready when the request starts is taken over at once; what it is still waiting for is recorded
/// while it is sent, up to the cap. Frames, trailers, errors and the size hint are those of the body inside, so that a
/// transport chooses the same framing for both sendings. A transport that drops it midway gives the unread rest back,
/// and the second sending goes on with that after the recorded part.
///
/// `B` must be able to hold any body, as `http_body_util`'s `BoxBody` does, since a `Recorded<B>` becomes a `B` again:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::combinators::UnsyncBoxBody;
/// use tower_oauth2_client::Recorded;
///
/// struct MyBody(UnsyncBoxBody<Bytes, std::io::Error>);
///
/// impl MyBody {
///     fn new<B>(body: B) -> Self
///     where
///         B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
///     {
///         Self(UnsyncBoxBody::new(body))
///     }
/// }
/// # impl http_body::Body for MyBody {
/// #     type Data = Bytes;
/// #     type Error = std::io::Error;
/// #     fn poll_frame(
/// #         mut self: std::pin::Pin<&mut Self>,
/// #         cx: &mut std::task::Context<'_>,
/// #     ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
/// #         std::pin::Pin::new(&mut self.0).poll_frame(cx)
/// #     }
/// # }
///
/// // `AuthLayer::replay_recorded(MyBody::new)` asks for this function:
/// let erase: fn(Recorded<MyBody>) -> MyBody = MyBody::new;
/// ```
pub struct Recorded<B: Body> {
    play: Frames,
    hint: SizeHint,
    rest: Rest<B>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Recorded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = match this.play.pop() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(this.rest.poll(context)),
        };
        if let Some(data) = polled.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.hint = less(&this.hint, data.len() as u64);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.play.is_empty()
            && match &self.rest {
                Rest::End => true,
                Rest::Error(_) => false,
                Rest::Body(body) | Rest::Tee(body, _) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// Nothing in here is pinned: `B` is polled only where it is `Unpin`.
impl<B: Body> Unpin for Recorded<B> {}

impl<B: Body> Drop for Recorded<B> {
    fn drop(&mut self) {
        if let Rest::Tee(body, tape) = std::mem::replace(&mut self.rest, Rest::End)
            && let Some(tape) = tape.upgrade()
        {
            lock(&tape).other_half = OtherHalf::Returned(body);
        }
    }
}

impl<B: Body> fmt::Debug for Recorded<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").finish_non_exhaustive()
    }
}

/// What comes after the frames that were taken over.
enum Rest<B: Body> {
    End,
    /// In a mutex only to be `Sync` whatever the error is.
    Error(Mutex<Option<B::Error>>),
    Body(B),
    /// Recorded on the way. The tape is gone when nobody can ask for a second sending any more.
    Tee(B, Weak<Mutex<Tape<B>>>),
}

impl<B: Body<Data = Bytes> + Unpin> Rest<B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = match self {
            Rest::End => None,
            Rest::Error(error) => error.get_mut().unwrap_or_else(PoisonError::into_inner).take().map(Err),
            Rest::Body(body) | Rest::Tee(body, _) => ready!(Pin::new(body).poll_frame(context)),
        };
        let taped = match self {
            Rest::Tee(_, tape) => tape.upgrade().is_some_and(|tape| lock(&tape).record(&polled)),
            _ => false,
        };
        // Behind its end and behind an error there is nothing, whatever the body would say if asked again.
        *self = match std::mem::replace(self, Rest::End) {
            Rest::Body(body) if matches!(polled, Some(Ok(_))) => Rest::Body(body),
            Rest::Tee(body, tape) if taped => Rest::Tee(body, tape),
            Rest::Tee(body, _) if matches!(polled, Some(Ok(_))) => Rest::Body(body),
            _ => Rest::End,
        };
        Poll::Ready(polled)
    }
}

/// What was recorded of a body that was not ready as a whole; the sender of the second request holds it.
pub(crate) struct Tape<B: Body> {
    frames: Frames,
    cap: usize,
    hint: SizeHint,
    erase: Erase<B>,
    other_half: OtherHalf<B>,
}

/// Where the part of the body is that is not on the tape.
enum OtherHalf<B> {
    Sending,
    Returned(B),
    Ended,
    Lost,
}

impl<B: Body> Tape<B> {
    fn take(&mut self) -> Self {
        let frames = std::mem::take(&mut self.frames);
        let other_half = std::mem::replace(&mut self.other_half, OtherHalf::Lost);
        Self { frames, other_half, ..*self }
    }

    /// Whether there is more to record.
    fn record(&mut self, polled: &Option<Result<Frame<Bytes>, B::Error>>) -> bool {
        self.other_half = match polled {
            Some(Ok(frame)) if self.frames.record(frame, self.cap) => return true,
            None => OtherHalf::Ended,
            Some(_) => {
                self.frames = Frames::default();
                OtherHalf::Lost
            }
        };
        false
    }
}

/// A queue of frames. The first one has a place of its own, so that a body of one frame allocates no queue.
#[derive(Default)]
struct Frames {
    first: Option<Bytes>,
    more: VecDeque<Frame<Bytes>>,
    recorded: usize,
}

impl Frames {
    /// So many frames may be recorded under every cap; under a large one, a frame for each 64 bytes of it.
    const FEWEST: usize = 1024;

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        let frame = if self.is_empty() {
            match frame.into_data() {
                Ok(data) => {
                    self.first = Some(data);
                    return;
                }
                Err(frame) => frame,
            }
        } else {
            frame
        };
        self.more.push_back(frame);
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        self.first.take().map(Frame::data).or_else(|| self.more.pop_front())
    }

    /// Pushes a copy if it stays within the cap. The number of frames is bounded too: an endless stream of empty ones
    /// would otherwise be recorded forever.
    fn record(&mut self, frame: &Frame<Bytes>, cap: usize) -> bool {
        let (copy, size) = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => (Frame::data(data.clone()), data.len()),
            (None, Some(trailers)) => {
                let size = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                (Frame::trailers(trailers.clone()), size)
            }
            (None, None) => return false,
        };
        let size = self.recorded.saturating_add(size);
        if size > cap || self.more.len() >= Self::FEWEST.max(cap / 64) {
            return false;
        }
        self.recorded = size;
        self.push(copy);
        true
    }
}

/// What is left of a hint after `read` bytes: exact stays exact, open stays open.
fn less(hint: &SizeHint, read: u64) -> SizeHint {
    let mut left = SizeHint::new();
    if let Some(upper) = hint.upper() {
        left.set_upper(upper.saturating_sub(read));
    }
    left.set_lower(hint.lower().saturating_sub(read));
    left
}

/// Nothing panics while a tape is locked.
fn lock<B: Body>(tape: &Mutex<Tape<B>>) -> MutexGuard<'_, Tape<B>> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::HeaderMap;

    use super::*;

    type Erased = UnsyncBoxBody<Bytes, &'static str>;

    const CAP: usize = 64 * 1024;

    enum Step {
        Data(Bytes),
        Trailers(HeaderMap),
        Pending,
        Error,
    }
    use Step::{Error, Pending, Trailers};

    fn data(data: impl Into<Bytes>) -> Step {
        Step::Data(data.into())
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))])
    }

    /// A body that follows a script and counts how often it is polled.
    #[derive(Default)]
    struct Script {
        steps: VecDeque<Step>,
        hint: SizeHint,
        polls: Arc<AtomicUsize>,
    }

    impl Script {
        fn new(steps: impl IntoIterator<Item = Step>) -> Self {
            Self { steps: steps.into_iter().collect(), ..Self::default() }
        }

        fn of_exactly(self, size: u64) -> Self {
            Self { hint: SizeHint::with_exact(size), ..self }
        }
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            self.polls.fetch_add(1, Ordering::SeqCst);
            Poll::Ready(match self.steps.pop_front() {
                Some(Step::Data(data)) => {
                    self.hint = less(&self.hint, data.len() as u64);
                    Some(Ok(Frame::data(data)))
                }
                Some(Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Error) => Some(Err("broken")),
                Some(Pending) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => None,
            })
        }

        fn size_hint(&self) -> SizeHint {
            self.hint
        }
    }

    fn copy_for_replay(script: Script, cap: usize) -> (Erased, Option<BodyCopy<Erased>>) {
        keep_body(UnsyncBoxBody::new(script), cap)
    }

    fn keep_body<B: Body<Error: Send> + 'static>(body: B, cap: usize) -> (B, Option<BodyCopy<B>>) {
        match vtable_of::<B>().unwrap() {
            ReplayVtable::Clone(clone) => {
                let copy = clone(&body);
                (body, Some(BodyCopy::Ready(copy)))
            }
            ReplayVtable::TryClone(_) => unreachable!("of no type that is known"),
            ReplayVtable::Record { record, erase } => record(body, erase, cap),
        }
    }

    /// One frame, whatever it has to wait for.
    fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
        for _ in 0..10_000 {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                return frame;
            }
        }
        panic!("never ready");
    }

    /// Data, trailers and errors in the order they came.
    #[derive(Debug, Default, PartialEq)]
    struct Read {
        data: Vec<u8>,
        trailers: Vec<HeaderMap>,
        errors: usize,
    }

    fn read_all<B: Body<Data = Bytes> + Unpin>(mut body: B) -> Read {
        let mut read = Read::default();
        while let Some(frame) = next(&mut body) {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => read.data.extend_from_slice(&data),
                Ok(Err(frame)) => read.trailers.extend(frame.into_trailers()),
                Err(_) => read.errors += 1,
            }
        }
        assert!(body.is_end_stream());
        assert!(next(&mut body).is_none(), "the end stays the end");
        read
    }

    fn bounds(hint: SizeHint) -> (u64, Option<u64>) {
        (hint.lower(), hint.upper())
    }

    /// The names are those that the compiler gives, as long as the types stay where they are.
    #[test]
    fn types_of_another_version_are_told_by_their_name() {
        use std::any::type_name;
        assert!(is_known_by_name(type_name::<BoxBody<Bytes, std::io::Error>>()));
        assert!(is_known_by_name(type_name::<UnsyncBoxBody<Bytes, std::io::Error>>()));
        #[cfg(feature = "tonic")]
        assert!(is_known_by_name(type_name::<tonic::body::Body>()));
        #[cfg(feature = "axum")]
        assert!(is_known_by_name(type_name::<axum_core::body::Body>()));
        #[cfg(feature = "reqwest")]
        assert!(is_known_by_name(type_name::<reqwest::Body>()));
        assert!(!is_known_by_name(type_name::<BoxBody<std::collections::VecDeque<u8>, std::io::Error>>()));
    }

    #[test]
    fn ops_are_found_by_type() {
        fn known<B: Body<Error: Send> + 'static>() -> bool {
            vtable_of::<B>().is_some()
        }
        assert!(known::<Full<Bytes>>() && known::<Empty<Bytes>>() && known::<String>());
        assert!(known::<BoxBody<Bytes, std::io::Error>>() && known::<UnsyncBoxBody<Bytes, Infallible>>());
        assert!(!known::<BoxBody<std::io::Cursor<Vec<u8>>, Infallible>>(), "only bodies of `Bytes`");
        assert_eq!(size_of::<ReplayVtable<Full<Bytes>>>(), 3 * size_of::<usize>());
        #[cfg(feature = "tonic")]
        assert!(known::<tonic::body::Body>());
        #[cfg(feature = "axum")]
        assert!(known::<axum_core::body::Body>());
        #[cfg(feature = "reqwest")]
        assert!(known::<reqwest::Body>());
    }

    /// Behaviour 62.
    #[test]
    fn an_unknown_type_has_no_ops_until_it_is_registered() {
        let mut registry = Registry::default();
        assert!(registry.vtable_of::<Script>().is_none());
        let old = registry.clone();
        registry.insert(ReplayVtable::Clone(|_: &Script| Script::default()));
        assert!(registry.vtable_of::<Script>().is_some());
        assert!(old.vtable_of::<Script>().is_none(), "a clone made before is another registry");
        assert!(registry.vtable_of::<Full<Bytes>>().is_some());
        assert!(registry.vtable_of::<Full<VecDeque<u8>>>().is_none());
    }

    /// Behaviour 61.
    #[test]
    fn a_clone_body_is_the_same_twice() {
        let (first, copy) = keep_body(Full::new(Bytes::from("hello")), 0);
        let second = copy.unwrap().rebuild().unwrap();
        assert_eq!(first.size_hint().exact(), second.size_hint().exact());
        assert_eq!(read_all(first), read_all(second));
        let (first, copy) = keep_body(String::from("hello"), 0);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
    }

    /// Behaviour 61.
    #[tokio::test]
    async fn a_ready_body_is_the_same_twice_whatever_the_transport_does_with_the_first() {
        let script = || Script::new([data("hel"), data("lo"), Trailers(trailers())]);
        for script in [script().of_exactly(5), script()] {
            let hint = bounds(script.hint);
            let (first, copy) = copy_for_replay(script, CAP);
            let second = copy.unwrap().rebuild().expect("the first is still owned, and that is fine");
            assert_eq!((bounds(first.size_hint()), bounds(second.size_hint())), (hint, hint));
            assert!(!first.is_end_stream() && !second.is_end_stream());
            let (first, second) = (read_all(first), read_all(second));
            assert_eq!(first.data, b"hello");
            assert_eq!(first, second);
        }
    }

    /// Behaviour 66.
    #[tokio::test]
    async fn an_empty_body_is_empty_twice() {
        let (first, copy) = keep_body(Empty::<Bytes>::new(), 0);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
        for body in [BoxBody::new(Empty::<Bytes>::new()), BoxBody::new(Full::new(Bytes::new()))] {
            let (first, copy) = keep_body(body, 0);
            let second = copy.unwrap().rebuild().unwrap();
            assert!(first.is_end_stream() && second.is_end_stream());
            assert_eq!((first.size_hint().exact(), second.size_hint().exact()), (Some(0), Some(0)));
        }
        let (first, copy) = copy_for_replay(Script::default(), 0);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
    }

    /// Behaviour 66.
    #[tokio::test]
    async fn trailers_are_sent_twice() {
        for steps in [[data("a"), Trailers(trailers())], [Pending, Trailers(trailers())]] {
            let (first, copy) = copy_for_replay(Script::new(steps), CAP);
            let first = read_all(first);
            assert_eq!(first.trailers, [trailers()]);
            assert_eq!(read_all(copy.unwrap().rebuild().unwrap()), first);
        }
    }

    /// Behaviour 63.
    #[tokio::test]
    async fn a_body_over_the_cap_is_sent_but_not_kept() {
        let chunk = Bytes::from(vec![7; 16 * 1024]);
        let script = Script::new((0..64).map(|_| data(chunk.clone())));
        let polls = script.polls.clone();
        let (first, copy) = copy_for_replay(script, CAP);
        assert!(copy.is_none());
        assert_eq!(polls.load(Ordering::SeqCst), 5, "no more is taken over than the cap and the frame that exceeds it");
        assert_eq!(read_all(first).data.len(), 64 * 16 * 1024);
        assert!(chunk.is_unique());
    }

    /// Behaviour 63.
    #[tokio::test]
    async fn a_body_that_says_it_is_over_the_cap_is_not_touched() {
        let script = Script::new([data(vec![7; CAP + 1])]).of_exactly(CAP as u64 + 1);
        let polls = script.polls.clone();
        let (first, copy) = copy_for_replay(script, CAP);
        assert!(copy.is_none());
        assert_eq!(polls.load(Ordering::SeqCst), 0);
        assert_eq!(first.size_hint().exact(), Some(CAP as u64 + 1));
    }

    /// Behaviour 63.
    #[tokio::test]
    async fn a_tape_over_the_cap_is_freed_and_the_body_goes_on() {
        let chunk = Bytes::from(vec![7; CAP / 2]);
        let script = Script::new([Pending, data(chunk.clone()), data(chunk.clone()), data("x"), data("y")]);
        let polls = script.polls.clone();
        let (mut first, copy) = copy_for_replay(script, CAP);
        assert_eq!(polls.load(Ordering::SeqCst), 1, "what is not ready is left to the transport");
        for _ in 0..2 {
            drop(next(&mut first));
        }
        assert!(!chunk.is_unique(), "recorded");
        drop(next(&mut first));
        assert!(chunk.is_unique(), "freed");
        assert_eq!(read_all(first).data, b"y");
        assert!(copy.unwrap().rebuild().is_none());
    }

    #[tokio::test]
    async fn exactly_the_cap_is_kept() {
        let (_, copy) = copy_for_replay(Script::new([data("hello"), data("world")]), 10);
        assert!(copy.is_some());
        let (_, copy) = copy_for_replay(Script::new([data("hello"), data("world!")]), 10);
        assert!(copy.is_none());
    }

    #[tokio::test]
    async fn an_endless_body_of_empty_frames_does_not_hold_the_caller_up() {
        let (_, copy) = copy_for_replay(Script::new((0..5_000).map(|_| data(""))), CAP);
        assert!(copy.is_none());
    }

    #[tokio::test]
    async fn nothing_is_recorded_when_nobody_can_ask_for_it() {
        let chunk = Bytes::from(vec![7; 100]);
        let (mut first, copy) =
            copy_for_replay(Script::new([data(chunk.clone()), Pending, data(chunk.clone()), data("x")]), CAP);
        drop(copy);
        for _ in 0..2 {
            drop(next(&mut first));
        }
        assert!(chunk.is_unique());
        assert_eq!(read_all(first).data, b"x");
    }

    /// Behaviour 64.
    #[tokio::test]
    async fn an_answer_before_the_body_was_read() {
        let script = || Script::new([data("he"), Pending, data("llo"), Trailers(trailers())]).of_exactly(5);
        for read_before in 0..=3 {
            let (mut first, copy) = copy_for_replay(script(), CAP);
            for _ in 0..read_before {
                assert!(next(&mut first).unwrap().is_ok());
            }
            drop(first);
            let second = copy.unwrap().rebuild().expect("the rest was given back");
            assert_eq!(second.size_hint().exact(), Some(5), "whole again");
            let second = read_all(second);
            assert_eq!((&*second.data, &*second.trailers), (&b"hello"[..], &[trailers()][..]));
        }
    }

    /// Behaviour 64.
    #[tokio::test]
    async fn a_body_read_to_its_end_may_still_be_held() {
        let (mut first, copy) = copy_for_replay(Script::new([Pending, data("hello")]), CAP);
        while next(&mut first).is_some() {}
        assert_eq!(read_all(copy.unwrap().rebuild().unwrap()).data, b"hello");
    }

    /// Behaviour 68.
    #[tokio::test]
    async fn a_body_that_is_still_being_sent_is_not_replayed() {
        let (mut first, copy) = copy_for_replay(Script::new([data("a"), Pending, data("b"), Pending, data("c")]), CAP);
        for _ in 0..2 {
            assert!(next(&mut first).unwrap().is_ok());
        }
        assert!(copy.unwrap().rebuild().is_none());
        assert_eq!(read_all(first).data, b"c", "and is not disturbed");
    }

    /// Behaviour 65.
    #[tokio::test]
    async fn an_error_surfaces_once_and_behind_the_data() {
        for steps in [vec![data("ab"), Error, data("c")], vec![data("a"), Pending, data("b"), Error, data("c")]] {
            let (mut first, copy) = copy_for_replay(Script::new(steps), CAP);
            assert!(!first.is_end_stream());
            let mut sent = Vec::new();
            let error = loop {
                match next(&mut first).unwrap() {
                    Ok(frame) => sent.extend_from_slice(frame.data_ref().unwrap()),
                    Err(error) => break error,
                }
            };
            assert_eq!((&*sent, error), (&b"ab"[..], "broken"));
            assert_eq!(read_all(first), Read::default());
            assert!(copy.and_then(BodyCopy::rebuild).is_none());
        }
        let (first, _) = copy_for_replay(Script::new([Error]), CAP);
        assert!(!first.is_end_stream(), "a transport that asks would not send it, and not see the error");
        assert_eq!(read_all(first).errors, 1);
        let (first, _) = copy_for_replay(Script::new((0..9).map(|_| data(vec![7; CAP / 8])).chain([Error])), CAP);
        assert_eq!(read_all(first).errors, 1, "not recorded, too");
    }

    #[test]
    fn outside_a_runtime_a_body_is_recorded_only_while_it_is_sent() {
        let script = Script::new([data("hello")]);
        let polls = script.polls.clone();
        let (first, copy) = copy_for_replay(script, CAP);
        assert_eq!(polls.load(Ordering::SeqCst), 0);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
    }

    #[tokio::test]
    async fn the_hint_goes_down_with_what_is_read() {
        let (mut first, _kept) = copy_for_replay(Script::new([data("hel"), Pending, data("lo")]).of_exactly(5), CAP);
        for left in [2, 0] {
            next(&mut first);
            assert_eq!(first.size_hint().exact(), Some(left));
        }
        let mut hint = SizeHint::new();
        hint.set_lower(4);
        assert_eq!(bounds(less(&hint, 9)), (0, None));
        hint.set_upper(10);
        assert_eq!(bounds(less(&hint, 3)), (1, Some(7)));
    }

    #[tokio::test]
    async fn a_body_of_one_frame_allocates_no_queue() {
        let mut frames = Frames::default();
        assert!(frames.record(&Frame::data(Bytes::from("a")), CAP));
        assert_eq!(frames.more.capacity(), 0);
    }

    #[test]
    fn threads_may_share_what_the_body_allows() {
        fn send<T: Send>() {}
        fn sync<T: Send + Sync>() {}
        send::<Recorded<Erased>>();
        sync::<Recorded<BoxBody<Bytes, std::cell::Cell<u8>>>>();
        send::<BodyCopy<Erased>>();
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn a_buffer_of_reqwest_stays_one() {
        let (first, copy) = keep_body(reqwest::Body::from("hello"), 0);
        let second = copy.unwrap().rebuild().unwrap();
        assert_eq!((first.as_bytes(), second.as_bytes()), (Some(&b"hello"[..]), Some(&b"hello"[..])));
        let (first, copy) = keep_body(reqwest::Body::wrap(Full::new(Bytes::from("hello"))), CAP);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
    }

    #[cfg(feature = "tonic")]
    #[tokio::test]
    async fn a_body_of_tonic_is_recorded() {
        let (first, copy) = keep_body(tonic::body::Body::new(Full::new(Bytes::from("hello"))), CAP);
        assert_eq!(read_all(first), read_all(copy.unwrap().rebuild().unwrap()));
    }
}
