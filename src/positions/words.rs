//! What methods know of the language: where sentences end, which tokens matter, what can be asked.

use std::sync::Arc;

/// A fact that can be stated and asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Says it.
    pub statement: Arc<[u32]>,
    /// Asks for it.
    pub question: Arc<[u32]>,
    /// Answers the question.
    pub answer: Arc<[u32]>,
}

/// Token ids that methods look for or bring. Empty lists are good enough to check settings with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// By id: whether it ends a sentence (LongRecipe). An id beyond the list does not.
    pub ends: Arc<[bool]>,
    /// By id: whether it makes its sentence worth keeping (LongRecipe).
    pub marked: Arc<[bool]>,
    /// What stands at the end of the target (EndPrompt).
    pub end_prompt: Arc<[u32]>,
    /// Facts about different things; of each, several with different answers (retrieval rows).
    pub facts: Arc<[Vec<Fact>]>,
}
