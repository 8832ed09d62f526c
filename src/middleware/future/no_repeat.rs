//! `Repeat` without the feature `dpop`: nothing wants a nonce.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower_service::Service;

use super::{Proved, Resent};
use crate::request::HttpRequest;
use crate::types::Error;

pub(super) struct Repeat<S, R, T>(Infallible, Of<S, R, T>);

type Of<S, R, T> = PhantomData<fn() -> (S, R, T)>;

pub(super) enum Repeated<S: Service<R>, R: HttpRequest> {
    #[expect(dead_code, reason = "there are no repeats")]
    FirstAttempt(S::Future, Box<Proved<S, R, S::Response>>),
    #[expect(dead_code, reason = "there are no repeats")]
    Resent(S::Future, Resent<S, R, S::Response>),
}

impl<S, R: HttpRequest, T> Repeat<S, R, T> {
    pub(super) fn of_proved(_: Box<Proved<S, R, T>>, response: T) -> Result<Self, T> {
        Err(response)
    }

    pub(super) fn of_resent(_: Resent<S, R, T>, response: T) -> Result<Self, T> {
        Err(response)
    }

    pub(super) fn poll(&mut self, _: &mut Context<'_>) -> Poll<Result<Repeated<S, R>, Error>>
    where
        S: Service<R, Response = T>,
    {
        match self.0 {}
    }
}
