//! What a tracing subscriber hears of the crate: events and spans, with their fields.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

pub(crate) type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) level: Level,
    /// Of a span its name.
    pub(crate) message: String,
    pub(crate) fields: Fields,
    /// All that it may have.
    pub(crate) declared: Vec<&'static str>,
    /// The names of the spans that it is in, and those of the spans that a span follows from.
    pub(crate) inside: Vec<String>,
    pub(crate) follows_from: Vec<String>,
}

/// Everything told under the crate's target, in order; spans when they close.
#[derive(Clone, Default)]
pub(crate) struct Capture {
    events: Arc<Mutex<Vec<Told>>>,
    spans: Arc<Mutex<Vec<Told>>>,
}

impl Capture {
    pub(crate) fn events(&self) -> Vec<Told> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self, name: &str) -> Vec<Told> {
        self.spans.lock().unwrap().iter().filter(|span| span.message == name).cloned().collect()
    }

    pub(crate) fn warnings(&self, beginning: &str) -> Vec<Told> {
        let mut events = self.events();
        events.retain(|event| event.level == Level::WARN && event.message.starts_with(beginning));
        events
    }
}

#[derive(Default)]
struct Visited(Fields);

impl Visit for Visited {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

struct Open {
    fields: Fields,
    follows_from: Vec<String>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut visited = Visited::default();
        attributes.record(&mut visited);
        let open = Open { fields: visited.0, follows_from: Vec::new() };
        ctx.span(id).unwrap().extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let mut visited = Visited::default();
        values.record(&mut visited);
        ctx.span(id).unwrap().extensions_mut().get_mut::<Open>().unwrap().fields.extend(visited.0);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, S>) {
        // The span that the other one is in: the request's.
        let follows = ctx.span(follows).unwrap();
        let name = follows.parent().map_or(follows.name(), |parent| parent.name());
        ctx.span(id).unwrap().extensions_mut().get_mut::<Open>().unwrap().follows_from.push(name.to_owned());
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        if !event.metadata().target().starts_with("tower_oauth2_client") {
            return;
        }
        let mut visited = Visited::default();
        event.record(&mut visited);
        let message = visited.0.remove("message").unwrap_or_default();
        let inside = ctx.event_scope(event).into_iter().flatten().map(|span| span.name().to_owned()).collect();
        let level = *event.metadata().level();
        let declared = event.metadata().fields().iter().map(|field| field.name()).filter(|name| *name != "message");
        let (declared, follows_from) = (declared.collect(), Vec::new());
        let told = Told { level, message, fields: visited.0, declared, inside, follows_from };
        self.events.lock().unwrap().push(told);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let span = ctx.span(&id).unwrap();
        let inside = span.scope().skip(1).map(|span| span.name().to_owned()).collect();
        let Some(Open { fields, follows_from }) = span.extensions_mut().remove::<Open>() else { return };
        let (level, message) = (*span.metadata().level(), span.name().to_owned());
        let declared = span.metadata().fields().iter().map(|field| field.name()).collect();
        self.spans.lock().unwrap().push(Told { level, message, fields, declared, inside, follows_from });
    }
}

thread_local! {
    static HERE: RefCell<Capture> = RefCell::default();
}

/// For the whole process, and each thread hears its own. (A subscriber for one thread may miss events that another thread meets
/// first at the same moment.)
pub(crate) struct PerThread;

impl PerThread {
    pub(crate) fn listen() -> Capture {
        let capture = Capture::default();
        HERE.set(capture.clone());
        capture
    }

    fn here() -> Capture {
        HERE.with_borrow(Capture::clone)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PerThread {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        Self::here().on_new_span(attributes, id, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        Self::here().on_record(id, values, ctx);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, S>) {
        Self::here().on_follows_from(id, follows, ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        Self::here().on_event(event, ctx);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        Self::here().on_close(id, ctx);
    }
}
