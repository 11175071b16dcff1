//! What is known of each of LongBench's datasets: prompt, length of the answer, metric, category.

use super::metrics::Metric;
use crate::eval::score::Counts;

/// Kinds of datasets, whose means are averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// A question about one document.
    SingleDoc,
    /// A question about several.
    MultiDoc,
    /// Summaries.
    Summary,
    /// Examples in the prompt.
    FewShot,
    /// Made for the purpose.
    Synthetic,
    /// Code.
    Code,
    /// Not one of LongBench's.
    Other,
}

impl Category {
    /// Every category, in the order of LongBench's tables.
    pub const ALL: [Self; 7] =
        [Self::SingleDoc, Self::MultiDoc, Self::Summary, Self::FewShot, Self::Synthetic, Self::Code, Self::Other];

    /// As tables write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleDoc => "single-doc QA",
            Self::MultiDoc => "multi-doc QA",
            Self::Summary => "summarisation",
            Self::FewShot => "few-shot",
            Self::Synthetic => "synthetic",
            Self::Code => "code",
            Self::Other => "other",
        }
    }
}

/// A dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dataset {
    /// Its name in the files.
    pub name: &'static str,
    /// Its kind.
    pub category: Category,
    /// Its prompt, with `{context}` and `{input}`.
    pub prompt: &'static str,
    /// Most tokens of an answer.
    pub answer_tokens: usize,
    /// How answers are scored.
    pub metric: Metric,
    /// What of an output is scored.
    pub counts: Counts,
}

impl Dataset {
    /// A dataset of LongBench or LongBench-E (`qasper_e`).
    pub fn find(name: &str) -> Option<&'static Self> {
        DATASETS.iter().find(|known| known.name == base(name))
    }

    /// A prompt of this dataset. What stands in the texts is never taken for a placeholder.
    pub fn prompt(&self, context: &str, input: &str) -> String {
        let filled = self.prompt.split("{context}").map(|part| part.split("{input}").collect::<Vec<_>>().join(input));
        filled.collect::<Vec<_>>().join(context)
    }
}

/// The name without LongBench-E's ending.
fn base(name: &str) -> &str {
    name.strip_suffix("_e").unwrap_or(name)
}

/// Whether it is one of the Chinese sets, whose scores need Chinese word segmentation or whose prompts are Chinese.
pub fn is_chinese(name: &str) -> bool {
    matches!(base(name), "multifieldqa_zh" | "dureader" | "vcsum" | "lsht" | "passage_retrieval_zh")
}

/// What a file of another name is taken for.
pub const UNKNOWN: Dataset = Dataset {
    name: "",
    category: Category::Other,
    prompt: "{context}\n\n{input}",
    answer_tokens: 64,
    metric: Metric::F1,
    counts: Counts::Everything,
};

const PASSAGES: &str = "Answer the question based on the given passages. Only give me the answer and do not output any other words.\n\nThe \
following are given passages.\n{context}\n\nAnswer the question based on the given passages. Only give me the answer and do not output \
any other words.\n\nQuestion: {input}\nAnswer:";

const fn dataset(
    name: &'static str,
    category: Category,
    (metric, counts): (Metric, Counts),
    answer_tokens: usize,
    prompt: &'static str,
) -> Dataset {
    Dataset { name, category, prompt, answer_tokens, metric, counts }
}

const F1: (Metric, Counts) = (Metric::F1, Counts::Everything);
const ROUGE: (Metric, Counts) = (Metric::RougeL, Counts::Everything);
const EDIT: (Metric, Counts) = (Metric::Edit, Counts::Everything);

/// The English sets and the sets of code.
const DATASETS: &[Dataset] = &[
    dataset(
        "narrativeqa",
        Category::SingleDoc,
        F1,
        128,
        "You are given a story, which can be either a novel or a movie script, and a question. Answer the question as concisely as \
         you can, using a single phrase if possible. Do not provide any explanation.\n\nStory: {context}\n\nNow, answer the question \
         based on the story as concisely as you can, using a single phrase if possible. Do not provide any \
         explanation.\n\nQuestion: {input}\n\nAnswer:",
    ),
    dataset(
        "qasper",
        Category::SingleDoc,
        F1,
        128,
        "You are given a scientific article and a question. Answer the question as concisely as you can, using a single phrase or \
         sentence if possible. If the question cannot be answered based on the information in the article, write \
         \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do not provide any \
         explanation.\n\nArticle: {context}\n\n Answer the question based on the above article as concisely as you can, using a \
         single phrase or sentence if possible. If the question cannot be answered based on the information in the article, write \
         \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do not provide any \
         explanation.\n\nQuestion: {input}\n\nAnswer:",
    ),
    dataset(
        "multifieldqa_en",
        Category::SingleDoc,
        F1,
        64,
        "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following question based on the above text, \
         only give me the answer and do not output any other words.\n\nQuestion: {input}\nAnswer:",
    ),
    dataset("hotpotqa", Category::MultiDoc, F1, 32, PASSAGES),
    dataset("2wikimqa", Category::MultiDoc, F1, 32, PASSAGES),
    dataset("musique", Category::MultiDoc, F1, 32, PASSAGES),
    dataset(
        "gov_report",
        Category::Summary,
        ROUGE,
        512,
        "You are given a report by a government agency. Write a one-page summary of the report.\n\nReport:\n{context}\n\nNow, write \
         a one-page summary of the report.\n\nSummary:",
    ),
    dataset(
        "qmsum",
        Category::Summary,
        ROUGE,
        512,
        "You are given a meeting transcript and a query containing a question or instruction. Answer the query in one or more \
         sentences.\n\nTranscript:\n{context}\n\nNow, answer the query based on the above meeting transcript in one or more \
         sentences.\n\nQuery: {input}\nAnswer:",
    ),
    dataset(
        "multi_news",
        Category::Summary,
        ROUGE,
        512,
        "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n{context}\n\nNow, write a one-page \
         summary of all the news.\n\nSummary:",
    ),
    dataset(
        "trec",
        Category::FewShot,
        (Metric::Classification, Counts::FirstLine),
        64,
        "Please determine the type of the question below. Here are some examples of questions.\n\n{context}\n{input}",
    ),
    dataset(
        "triviaqa",
        Category::FewShot,
        (Metric::F1, Counts::FirstLine),
        32,
        "Answer the question based on the given passage. Only give me the answer and do not output any other words. The following \
         are some examples.\n\n{context}\n\n{input}",
    ),
    dataset(
        "samsum",
        Category::FewShot,
        (Metric::RougeL, Counts::FirstLine),
        128,
        "Summarize the dialogue into a few short sentences. The following are some examples.\n\n{context}\n\n{input}",
    ),
    dataset(
        "passage_count",
        Category::Synthetic,
        (Metric::Count, Counts::Everything),
        32,
        "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please carefully read these \
         paragraphs and determine how many unique paragraphs there are after removing duplicates. In other words, how many \
         non-repeating paragraphs are there in total?\n\n{context}\n\nPlease enter the final count of unique paragraphs after \
         removing duplicates. The output format should only contain the number, such as 1, 2, 3, and so on.\n\nThe final answer is: ",
    ),
    dataset(
        "passage_retrieval_en",
        Category::Synthetic,
        (Metric::Retrieval, Counts::Everything),
        32,
        "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which paragraph the abstract is \
         from.\n\n{context}\n\nThe following is an abstract.\n\n{input}\n\nPlease enter the number of the paragraph that the \
         abstract is from. The answer format must be like \"Paragraph 1\", \"Paragraph 2\", etc.\n\nThe answer is: ",
    ),
    dataset("lcc", Category::Code, EDIT, 64, "Please complete the code given below. \n{context}Next line of code:\n"),
    dataset(
        "repobench-p",
        Category::Code,
        EDIT,
        64,
        "Please complete the code given below. \n{context}{input}Next line of code:\n",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_take_texts_as_they_are() {
        let set = Dataset::find("multifieldqa_en_e").unwrap();
        let prompt = set.prompt("a {input} b", "{context}?");
        assert!(prompt.contains("\n\na {input} b\n\nNow") && prompt.ends_with("Question: {context}?\nAnswer:"), "{prompt}");
    }

    #[test]
    fn every_dataset_is_found_under_its_name_alone() {
        for known in DATASETS {
            assert_eq!(Dataset::find(known.name).unwrap().name, known.name);
            assert!(known.prompt.contains("{context}") && !is_chinese(known.name));
        }
        assert!(Dataset::find("vcsum").is_none() && is_chinese("vcsum") && is_chinese("dureader"));
    }
}
