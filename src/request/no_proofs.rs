//! `Proofs` without the feature `dpop`: nothing, at no cost.

use http::{HeaderMap, HeaderValue};

use crate::request::{HttpRequest, OriginPolicy};
use crate::types::Error;

#[derive(Default)]
pub(crate) struct Proofs(());

#[derive(Default)]
pub(crate) struct ProofSent(());

impl Proofs {
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn check<R: HttpRequest>(&self, _: &R, _: &OriginPolicy) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    pub(crate) fn put<R: HttpRequest>(
        &self,
        _: &mut R,
        _: &HeaderValue,
        _: &OriginPolicy,
        _: ProofSent,
        _: Option<Box<str>>,
    ) -> Result<ProofSent, Error> {
        Ok(ProofSent(()))
    }

    #[inline]
    pub(crate) fn learn(&self, _: &mut ProofSent, _: &HeaderMap) {}
}

impl ProofSent {
    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn may_repeat(&self) -> bool {
        false
    }
}
