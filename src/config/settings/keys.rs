//! Tables of settings: each key once, an unknown one is an error that names the nearest.

/// A table of settings, all of them optional: what is not there is as the builder has it.
///
/// Whatever uses a key takes it out; a key that is left over means nothing, and is an error.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $field:vis $key:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Default)]
        $vis struct $name {
            $( $field $key: Option<$type>, )*
        }

        impl $name {
            const KEYS: &'static [&'static str] = &[$( stringify!($key) ),*];

            /// The keys that are there.
            fn given(&self) -> impl Iterator<Item = &'static str> {
                let all = [$( (stringify!($key), self.$key.is_some()) ),*];
                all.into_iter().filter_map(|(key, is_given)| is_given.then_some(key))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Table;

                impl<'de> serde::de::Visitor<'de> for Table {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a table of settings")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut table = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $( stringify!($key) => {
                                    if table.$key.is_some() {
                                        return Err(serde::de::Error::duplicate_field(stringify!($key)));
                                    }
                                    table.$key = map.next_value()?;
                                } )*
                                unknown => {
                                    let nearest = $crate::config::settings::keys::named(unknown, $name::KEYS);
                                    return Err(serde::de::Error::custom(format!("unknown key {nearest}")));
                                }
                            }
                        }
                        Ok(table)
                    }
                }

                deserializer.deserialize_map(Table)
            }
        }

        /// Tells which keys are there, and no value.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))?;
                f.debug_set().entries(self.given()).finish()
            }
        }
    };
}

/// One of a few words, and what it stands for.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident: $type:ty { $( $word:literal => $value:expr, )* }) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub(super) struct $name(pub(super) $type);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;

                impl serde::de::Visitor<'_> for Word {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("one of", $( " `", $word, "`" ),*))
                    }

                    // Not what stands there: it may be a secret in the wrong place.
                    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<$name, E> {
                        match word {
                            $( $word => Ok($name($value)), )*
                            _ => Err(E::custom(concat!("not one of", $( " `", $word, "`" ),*))),
                        }
                    }
                }

                deserializer.deserialize_str(Word)
            }
        }
    };
}

pub(super) use {choice, table};

/// A name that is not on the list, with the nearest one that is.
pub(super) fn named<'a>(name: &str, known: impl IntoIterator<Item = &'a &'a str>) -> String {
    /// Longer ones are no names.
    const LONGEST: usize = 64;
    let shown = name.chars().take(LONGEST).collect::<String>();
    let shown = shown.escape_debug();
    let length = shown.clone().count();
    let nearest = known.into_iter().map(|known| (distance(&shown.to_string(), known), *known)).min();
    match nearest {
        // Every third character may be wrong.
        Some((wrong, nearest)) if wrong.saturating_mul(3) <= length.max(3) => {
            format!("`{shown}` (did you mean `{nearest}`?)")
        }
        _ => format!("`{shown}`"),
    }
}

/// How many characters must be inserted, removed, replaced or swapped with the next one.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    // Of the beginning of `one`, to each beginning of `other`: the row before the last one, and the last one.
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=other.len()).collect());
    let mut former = None;
    for (done, from) in one.chars().enumerate() {
        let mut row = vec![done.saturating_add(1)];
        for (at, to) in other.iter().enumerate() {
            let get = |row: &[usize], at: Option<usize>| at.and_then(|at| row.get(at)).copied().unwrap_or(usize::MAX);
            let replaced = get(&last, Some(at)).saturating_add(usize::from(from != *to));
            let removed = get(&last, at.checked_add(1)).saturating_add(1);
            let inserted = get(&row, Some(at)).saturating_add(1);
            let is_swapped = former == Some(*to) && at.checked_sub(1).and_then(|at| other.get(at)) == Some(&from);
            let swapped = if is_swapped { get(&before, at.checked_sub(1)).saturating_add(1) } else { usize::MAX };
            row.push(replaced.min(removed).min(inserted).min(swapped));
        }
        (before, last, former) = (last, row, Some(from));
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_if_it_is_near() {
        for (one, other, expected) in
            [("", "", 0), ("a", "", 1), ("scops", "scopes", 1), ("kitten", "sitting", 3), ("frist", "first", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (expected, expected), "{one} {other}");
        }
        let known = ["scopes", "token_url", "token_timeout"];
        assert_eq!(named("scops", &known), "`scops` (did you mean `scopes`?)");
        assert_eq!(named("token-timeout", &known), "`token-timeout` (did you mean `token_timeout`?)");
        assert_eq!(named("something", &known), "`something`");
        assert!(named(&"x\n".repeat(1000), &known).len() < 200);
    }
}
