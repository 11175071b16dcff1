//! Before and after: perplexity, passkey retrieval.
