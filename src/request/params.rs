//! `SubjectPolicy`: the parameters that a request brings for its token request, and whether they fit the layer's grant.

use crate::types::{Error, TokenParams};

/// Whether requests bring a subject token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SubjectPolicy {
    /// Nothing would use it.
    #[default]
    Unused,
    /// The grant is on behalf of each request's user.
    Required,
    /// Tokens come from a source of the user's, which may use it.
    Optional,
}

const CONTRADICTION: &str =
    "the request brings `TokenParams`, and the service it goes through has others (`Auth::for_params`)";
const MISSING: &str = "the request brings no subject token, and this layer asks for tokens on a person's behalf; put `TokenParams` into its extensions";
const UNUSED: &str =
    "the request brings a subject token, and this layer's grant would not use it; `AuthConfig::on_behalf_of` would";

impl SubjectPolicy {
    /// The parameters of a request: its own, or those of the service that it goes through.
    ///
    /// # Errors
    /// `Subject`.
    #[inline]
    pub(crate) fn params(
        self,
        own: Option<&TokenParams>,
        named: Option<&TokenParams>,
    ) -> Result<Option<TokenParams>, Error> {
        if named.is_none() && own.is_none() && self != Self::Required { Ok(None) } else { self.judge(own, named) }
    }

    #[cold]
    fn judge(self, own: Option<&TokenParams>, named: Option<&TokenParams>) -> Result<Option<TokenParams>, Error> {
        if let (Some(own), Some(named)) = (own, named)
            && own != named
        {
            return Err(Error::Subject { reason: CONTRADICTION });
        }
        let params = named.or(own);
        let has_subject = params.is_some_and(|params| params.subject_token().is_some());
        match self {
            Self::Required if !has_subject => Err(Error::Subject { reason: MISSING }),
            Self::Unused if has_subject => Err(Error::Subject { reason: UNUSED }),
            _ => Ok(params.cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SubjectToken;

    /// Behaviour 183.
    #[test]
    fn a_subject_is_there_exactly_where_it_is_used() {
        let subject = || TokenParams::new().subject(SubjectToken::access_token("canary").unwrap());
        let audience = || TokenParams::new().audience("a").unwrap();
        let judge = |policy: SubjectPolicy, own: Option<TokenParams>, named: Option<TokenParams>| {
            policy.params(own.as_ref(), named.as_ref()).map_err(|error| format!("{error} {error:?}"))
        };
        use SubjectPolicy::*;
        let allowed = [
            (Unused, None, None, None),
            (Unused, None, Some(audience()), Some(audience())),
            (Unused, Some(audience()), None, Some(audience())),
            (Required, None, Some(subject()), Some(subject())),
            (Required, Some(subject()), Some(subject()), Some(subject())),
            (Optional, None, None, None),
            (Optional, Some(subject()), None, Some(subject())),
        ];
        for (at, (policy, own, named, expected)) in allowed.into_iter().enumerate() {
            assert_eq!(judge(policy, own, named), Ok(expected), "{at}");
        }
        let refused = [
            (Required, None, None, "no subject token"),
            (Required, None, Some(audience()), "no subject token"),
            (Unused, None, Some(subject()), "would not use it"),
            (Unused, Some(subject()), None, "would not use it"),
            (Required, Some(subject()), Some(subject().audience("a").unwrap()), "has others"),
        ];
        for (policy, own, named, told) in refused {
            let error = judge(policy, own, named).unwrap_err();
            assert!(error.contains(told) && !error.contains("canary"), "{error}");
        }
    }
}
