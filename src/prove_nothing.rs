//! `Proving` without the feature `dpop`: nothing, at no cost.

use http::{HeaderMap, HeaderValue};

use crate::error::Error;
use crate::message::HttpRequest;
use crate::request::OriginPolicy;

#[derive(Default)]
pub(crate) struct Proving;

#[derive(Default)]
pub(crate) struct Proven;

impl Proving {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn check<R: HttpRequest>(&self, _: &R, _: &OriginPolicy) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    pub(crate) fn prove<R: HttpRequest>(
        &self,
        _: &mut R,
        _: &HeaderValue,
        _: &OriginPolicy,
        _: Proven,
        _: Option<Box<str>>,
    ) -> Result<Proven, Error> {
        Ok(Proven)
    }

    #[inline]
    pub(crate) fn learn(&self, _: &mut Proven, _: &HeaderMap) {}
}

impl Proven {
    #[inline]
    pub(crate) fn scheme(&self) -> &'static [u8] {
        b"Bearer"
    }

    #[inline]
    pub(crate) fn may_repeat(&self) -> bool {
        false
    }
}
