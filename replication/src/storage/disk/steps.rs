//! Where tests look at what a crash would leave: around each change.

#[derive(Default)]
pub(super) struct Steps {
    #[cfg(test)]
    pub(super) look: Option<Box<dyn FnMut() + Send>>,
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Steps")
    }
}

#[cfg_attr(not(test), expect(clippy::unused_self, clippy::needless_pass_by_ref_mut))]
impl Steps {
    pub(super) fn is_watched(&self) -> bool {
        #[cfg(test)]
        return self.look.is_some();
        #[cfg(not(test))]
        false
    }

    pub(super) fn step(&mut self) {
        #[cfg(test)]
        if let Some(look) = &mut self.look {
            look();
        }
    }
}
