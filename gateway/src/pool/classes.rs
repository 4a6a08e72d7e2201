//! Storage classes: what the operator calls them and what their objects get.
//!
//! Invariant: a class's number in the catalog never changes and is never
//! reused; a number whose class is no longer configured still has its name,
//! and its objects are read as before. What scheme a class has in this pool
//! is decided by `placement`.

use std::collections::HashMap;

use shardgate_catalog::{Catalog, CatalogError};
use shardgate_erasure::Scheme;
use shardgate_wire::Medium;
use thiserror::Error;

/// The class of an object that names none.
pub const DEFAULT_CLASS: &str = "STANDARD";
/// The class of two copies that S3 clients know.
pub const REDUCED_CLASS: &str = "REDUCED_REDUNDANCY";

/// A scheme as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemeSetting {
    /// The last of the list that fits the pool.
    Auto,
    /// This one.
    Fixed(Scheme),
}

impl SchemeSetting {
    /// The scheme, `None` for auto.
    pub fn fixed(self) -> Option<Scheme> {
        match self {
            Self::Auto => None,
            Self::Fixed(scheme) => Some(scheme),
        }
    }
}

/// A class as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSetting {
    /// As in `x-amz-storage-class`.
    pub name: String,
    /// What its objects get.
    pub scheme: SchemeSetting,
    /// On disks of this medium only.
    pub medium: Option<Medium>,
}

impl ClassSetting {
    /// The two classes that every pool has.
    pub fn defaults() -> Vec<Self> {
        let two_copies = Scheme::new(1, 1).expect("1+1 is a scheme");
        vec![
            Self {
                name: DEFAULT_CLASS.into(),
                scheme: SchemeSetting::Auto,
                medium: None,
            },
            Self {
                name: REDUCED_CLASS.into(),
                scheme: SchemeSetting::Fixed(two_copies),
                medium: None,
            },
        ]
    }

    /// The default classes with those of the operator in place of or beside
    /// them.
    pub fn with_defaults(own: Vec<Self>) -> Vec<Self> {
        let mut all = Self::defaults();
        for class in own {
            match all.iter_mut().find(|of| of.name == class.name) {
                Some(default) => *default = class,
                None => all.push(class),
            }
        }
        all
    }
}

/// No class of that name is configured.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no storage class {name:?}")]
pub struct UnknownClass {
    /// The name.
    pub name: String,
}

/// The configured classes with their numbers.
#[derive(Debug)]
pub(crate) struct Classes {
    configured: Vec<(u16, ClassSetting)>,
    /// Every name that was ever registered.
    names: HashMap<u16, String>,
}

impl Classes {
    /// Registers the configured classes in the catalog.
    pub(crate) async fn register(
        catalog: &Catalog,
        settings: &[ClassSetting],
    ) -> Result<Self, CatalogError> {
        let mut configured = Vec::with_capacity(settings.len());
        for setting in settings {
            let number = catalog.class_number(&setting.name).await?;
            configured.push((number, setting.clone()));
        }
        let rows = catalog.classes().await?;
        Ok(Self {
            configured,
            names: rows.into_iter().map(|row| (row.number, row.name)).collect(),
        })
    }

    pub(crate) fn by_name(&self, name: Option<&str>) -> Result<&(u16, ClassSetting), UnknownClass> {
        let name = name.unwrap_or(DEFAULT_CLASS);
        let found = self.configured.iter().find(|(_, class)| class.name == name);
        found.ok_or_else(|| UnknownClass {
            name: name.to_owned(),
        })
    }

    pub(crate) fn by_number(&self, number: u16) -> Option<&(u16, ClassSetting)> {
        self.configured.iter().find(|(of, _)| *of == number)
    }

    /// The name that objects of this number show.
    pub(crate) fn name(&self, number: u16) -> &str {
        self.names
            .get(&number)
            .map_or(DEFAULT_CLASS, String::as_str)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &(u16, ClassSetting)> {
        self.configured.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_classes_replace_and_join_the_defaults() {
        let own = vec![
            ClassSetting {
                name: "STANDARD".into(),
                scheme: SchemeSetting::Fixed("2+2".parse().unwrap()),
                medium: None,
            },
            ClassSetting {
                name: "GOLD".into(),
                scheme: SchemeSetting::Auto,
                medium: Some(Medium::Flash),
            },
        ];
        let all = ClassSetting::with_defaults(own);
        let names: Vec<_> = all.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["STANDARD", "REDUCED_REDUNDANCY", "GOLD"]);
        assert_eq!(all[0].scheme.fixed(), Some("2+2".parse().unwrap()));
    }

    #[tokio::test]
    async fn numbers_stay_when_the_configuration_changes() {
        let catalog = Catalog::in_memory();
        let first = Classes::register(&catalog, &ClassSetting::defaults())
            .await
            .unwrap();
        let reduced = first.by_name(Some(REDUCED_CLASS)).unwrap().0;
        let only = vec![ClassSetting::defaults().remove(0)];
        let second = Classes::register(&catalog, &only).await.unwrap();
        assert_eq!(second.name(reduced), REDUCED_CLASS);
        assert_eq!(second.by_number(reduced), None);
        assert_eq!(
            second.by_name(Some(REDUCED_CLASS)),
            Err(UnknownClass {
                name: REDUCED_CLASS.into()
            })
        );
        assert_eq!(second.by_name(None).unwrap().1.name, DEFAULT_CLASS);
    }
}
