//! The alphabet of names: of topics, and of what is no topic.

/// Characters that stand only inside a name.
pub(crate) const INSIDE_ONLY: [char; 2] = ['.', ':'];

/// Returns whether names have this character.
pub(crate) fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-') || INSIDE_ONLY.contains(&character)
}
