//! The prompts of the released code, which every published number was measured with: a task's text, and how its answer begins.

/// Filler of `niah_single_1` and `vt`, one to a line.
pub const NOISE: &str = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

/// What hides: `kind` is `numbers` or `uuids`.
pub fn needle(kind: &str, key: &str, value: &str) -> String {
    format!("One of the special magic {kind} for {key} is: {value}.")
}

/// How many things a needle task asks for, which decides its grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// One value of one key.
    One,
    /// Several.
    Several,
}

/// The needle tasks' text around `context`.
pub fn niah(asked: Asked, kind: &str, context: &str, query: &str) -> String {
    let (head, what, kind) = match asked {
        Asked::One => ("A special magic", ["is", "is the"], kind.trim_end_matches('s')),
        Asked::Several => ("Some special magic", ["are", "are all the"], kind),
    };
    let [verb, question] = what;
    format!(
        "{head} {kind} {verb} hidden within the following text. Make sure to memorize it. I will quiz you about the {kind} \
         afterwards.\n{context}\nWhat {question} special magic {kind} for {query} mentioned in the provided text?"
    )
}

/// How the needle tasks' answers begin.
pub fn niah_prefix(asked: Asked, kind: &str, query: &str) -> String {
    let (kind, verb) = match asked {
        Asked::One => (kind.trim_end_matches('s'), "is"),
        Asked::Several => (kind, "are"),
    };
    format!(" The special magic {kind} for {query} mentioned in the provided text {verb}")
}

/// Variable tracking's text.
pub fn trace(context: &str, value: &str) -> String {
    format!(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{context}\nQuestion: Find all \
         variables that are assigned the value {value} in the text above."
    )
}

/// How variable tracking's answer begins.
pub fn trace_prefix(count: usize, value: &str) -> String {
    format!(
        " Answer: According to the chain(s) of variable assignment in the text above, {count} variables are assigned the value \
         {value}, they are: "
    )
}

/// Common words' text.
pub fn common(context: &str) -> String {
    format!(
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most \
         often.\n{context}\nQuestion: What are the 10 most common words in the above list?"
    )
}

/// How common words' answer begins.
pub const COMMON_PREFIX: &str = " Answer: The top 10 words that appear most often in the list are:";

/// Frequent words' text.
pub fn frequent(context: &str) -> String {
    format!(
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded \
         words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most \
         frequently appeared words in the above coded text?"
    )
}

/// How frequent words' answer begins.
pub const FREQUENT_PREFIX: &str = " Answer: According to the coded text above, the three most frequently appeared words are:";

/// A question about documents.
pub fn qa(context: &str, question: &str) -> String {
    const TASK: &str =
        "Answer the question based on the given documents. Only give me the answer and do not output any other words.";
    format!("{TASK}\n\nThe following are given documents.\n\n{context}\n\n{TASK}\n\nQuestion: {question}")
}

/// How its answer begins.
pub const QA_PREFIX: &str = " Answer:";
