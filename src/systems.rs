//! Published systems, and the calls that make them. Documentation only.
//!
//! | system | layer | calls | compared with |
//! |---|---|---|---|
//! | [DIN](#din-sdim-dare-and-tin) (arXiv 1706.06978) | activation unit | [`Din`](crate::Din) | deepctr-torch, FuxiCTR |
//! | [SDIM](#din-sdim-dare-and-tin) (arXiv 2205.10249) | hash, bucket tables, query | [`Sdim`](crate::Sdim) | FuxiCTR |
//! | [DARE](#din-sdim-dare-and-tin) (arXiv 2410.02604) | search in one table, aggregate from another | [`Decoupled`](crate::Decoupled) | the published code |
//! | [TIN](#din-sdim-dare-and-tin) (arXiv 2308.08487) | temporal positions, target-aware attention | [`Tin`](crate::Tin) | its formula in `f64`, gradients by differences |
//! | [MUSE](#muse) (arXiv 2512.07216) | 8-bit cosines, SimTier, SA-TA | [`Search::cosine`](crate::Search::cosine), [`SimilarityHistogram`](crate::SimilarityHistogram), [`SelectedAttention`](crate::SelectedAttention) | its formulas in `f64`, gradients by differences |
//! | [SIM](#sim) (arXiv 2006.05639) | hard and soft search, attention | [`Search::matching`](crate::Search::matching), [`Search::dot`](crate::Search::dot), [`SelectedAttention`](crate::SelectedAttention) | soft search: its formula; attention: FuxiCTR, with gradients |
//! | [ETA](#eta) (arXiv 2108.04468) | SimHash, Hamming distance, attention | [`Signs`](crate::Signs), [`Search::hamming`](crate::Search::hamming), [`SelectedAttention`](crate::SelectedAttention) | search: FuxiCTR |
//! | [TWIN](#twin) (arXiv 2302.02352) | one score for both stages | [`Search::dot`](crate::Search::dot) with a bias, [`SelectedAttention`](crate::SelectedAttention) | FuxiCTR, with gradients |
//! | [QIN](#qin) (arXiv 2504.17699) | ReLU attention and a residual | [`TargetAttention`](crate::TargetAttention) | its formula in `f64`, gradients by differences |
//! | [HSTU](#hstu-candidates-over-cached-behaviours) (arXiv 2402.17152) | candidates over cached behaviours | [`TargetAttention`](crate::TargetAttention) | the reference |
//! | [STCA](#stca) (arXiv 2511.06077) | stacked cross attention | [`TargetAttention`](crate::TargetAttention) | attention: FuxiCTR |
//! | DiffuMIN (arXiv 2508.15311) | channels of orthogonal interests | [`InterestChannels`](crate::InterestChannels), which has the formula and an example | its formula in `f64`, gradients in closed form |
//!
//! "The reference" means: every call is compared with [`reference`](mod@crate::reference), but the layer as a whole is not. Files
//! of published results and the script that computes formulas in `f64` are in `tests/golden`.
//!
//! The examples leave to the model: projections (matrix products of any library), embeddings of items, what comes after the
//! pooled row. They run on [`Cpu`](crate::Cpu); any backend takes the same calls.
//!
//! # DIN, SDIM, DARE and TIN
//!
//! Each is one operation, whose page has the formula, the source and an example: [`Din`](crate::Din), [`Sdim`](crate::Sdim),
//! [`Decoupled`](crate::Decoupled), [`Tin`](crate::Tin).
//!
//! # MUSE
//!
//! Frozen multimodal embeddings in 8 bits find the most similar behaviours; their similarities are counted (SimTier) and take part in the
//! attention over ids (SA-TA), `α = γ₁·s + γ₂·R + γ₃·s·R`.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[4])?, &Jagged::from_lengths(&[1])?)?;
//! let (candidate, history) = ([100_i8, 0], [100_i8, 0, 0, 50, 60, 80, 0, 0]); // the last one is padding
//! let rows = |codes| SearchRows::Codes(Host::view(codes));
//! let inputs = SimilarityInputs::new(rows(&candidate), rows(&history));
//! let kept = backend.search(&Search::cosine(2).with_top_k(2), &batch, inputs)?;
//! assert_eq!(*kept.positions, [0, 2]); // cosines 1 and 0.6
//!
//! let tiers = backend.similarity_histogram(&SimilarityHistogram::new(2).with_top_k(2), &batch, kept.selection())?;
//! assert_eq!(*tiers, [0, 0, 0, 0, 2]); // both in (0.5, 1]; a feature is ln(1 + count)·embedding of the bin
//!
//! let (queries, keys, values) = ([0.0_f32], [0.0; 4], [1.0, 9.0, 3.0, 9.0]); // projected rows of ids
//! let gammas = [1.0, 2.5 * 3.0_f32.ln(), 0.0]; // trained; MUSE's division of R by a temperature is part of γ₂ and γ₃
//! let inputs = SelectedAttentionInputs::new(Host::view(&queries), Host::view(&keys), kept.selection())
//!     .with_values(Host::view(&values))
//!     .with_gammas(Host::view(&gammas));
//! let interest = backend.selected_attention(&SelectedAttention::new(1).with_top_k(2), &batch, inputs)?;
//! assert!((interest[0] - 1.5).abs() < 1e-6); // weights ¾ and ¼
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # SIM
//!
//! Hard search keeps the newest behaviours of the candidate's category, soft search those of the largest dot products. The second stage is
//! multi-head attention over what was kept, whose keys include an embedding of the time since the behaviour.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[5])?, &Jagged::from_lengths(&[1])?)?;
//! let [category, categories] = [&[7_u32][..], &[7, 8, 7, 9, 7]].map(|keys| SearchRows::Keys(Host::view(keys)));
//! let hard = Search::matching().with_top_k(2);
//! let kept = backend.search(&hard, &batch, SimilarityInputs::new(category, categories))?;
//! assert_eq!(*kept.positions, [4, 2]);
//!
//! let (query, keys) = ([0.0_f32, 1.0], [1.0, 0.0, 5.0, 5.0, 3.0, 0.0, 5.0, 5.0, 5.0, 0.0]); // projected
//! let inputs = SelectedAttentionInputs::new(Host::view(&query), Host::view(&keys), kept.selection());
//! let heads = SelectedAttention::new(1).with_heads(2, 2).with_top_k(2);
//! assert_eq!(*backend.selected_attention(&heads, &batch, inputs)?, [4.0, 0.0]);
//!
//! let rows = |rows| SearchRows::F32(Host::view(rows));
//! let soft = Search::dot(2).with_top_k(2);
//! let kept = backend.search(&soft, &batch, SimilarityInputs::new(rows(&query), rows(&keys)))?;
//! assert_eq!(*kept.positions, [1, 3]);
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # ETA
//!
//! The signs of random rotations stand for rows; the behaviours with the fewest different signs are kept. Signs of items can be packed
//! once, when embeddings change.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
//! let (candidate, history) = ([1.0_f32, 0.1], [-1.0, 0.0, 2.0, 0.3, 0.5, -2.0]);
//! let rotations = [1.0_f32, 1.0, 1.0, 0.0, 2.0, -1.0]; // [d, bits], drawn once
//! let signs = Signs::new(2, 3);
//! let pack = |rows| backend.pack_signs(&signs, Host::view(rows), Host::view(&rotations));
//! let (queries, keys) = (pack(&candidate)?, pack(&history)?);
//! let inputs = SimilarityInputs::new(SearchRows::Signs(backend.view(&queries)), SearchRows::Signs(backend.view(&keys)));
//! let kept = backend.search(&Search::hamming(3).with_top_k(2), &batch, inputs)?;
//! assert_eq!((&*kept.positions, &*kept.scores), (&[1, 2][..], &[3.0, 2.0][..])); // bits that agree
//!
//! let inputs = SelectedAttentionInputs::new(Host::view(&candidate), Host::view(&history), kept.selection());
//! let interest = backend.selected_attention(&SelectedAttention::new(2).with_top_k(2), &batch, inputs)?;
//! assert!(interest[0] > 1.25); // mostly the row that points the candidate's way
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # TWIN
//!
//! Both stages have one score, `⟨q, k⟩/√d + β·(cross features)`, so the first stage's scores are the second stage's: `γ = (0, 1, 0)`. For
//! gradients of queries and keys the second stage computes them again, with the same bias.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[3])?, &Jagged::from_lengths(&[1])?)?;
//! let (query, keys, bias) = ([1.0_f32], [2.0, 3.0, 2.5], [1.5, 0.0, -2.0]); // projected keys may be kept per item
//! let rows = |rows| SearchRows::F32(Host::view(rows));
//! let inputs = SimilarityInputs::new(rows(&query), rows(&keys)).with_bias(Host::view(&bias));
//! let kept = backend.search(&Search::dot(1).with_top_k(2), &batch, inputs)?;
//! assert_eq!((&*kept.positions, &*kept.scores), (&[0, 1][..], &[3.5, 3.0][..]));
//!
//! let gammas = [0.0_f32, 1.0, 0.0];
//! let op = SelectedAttention::new(1).with_top_k(2);
//! let inputs = SelectedAttentionInputs::new(Host::view(&query), Host::view(&keys), kept.selection());
//! let by_scores = backend.selected_attention(&op, &batch, inputs.with_gammas(Host::view(&gammas)))?;
//! let again = backend.selected_attention(&op, &batch, inputs.with_bias(Host::view(&bias)))?;
//! assert!((by_scores[0] - again[0]).abs() < 1e-6);
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # QIN
//!
//! `o = W_o·(ReLU((W_q x)(W_k X)ᵀ/√d_a)·(W_v X)) + x`: no softmax, so an empty history leaves `x`.
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
//! let (target, query, keys, values) = ([0.5_f32], [2.0], [1.0, -1.0], [3.0, 9.0]); // projected but for the target
//! let op = TargetAttention::new(1).with_weighting(Weighting::Relu);
//! let inputs = TargetAttentionInputs::new(Host::view(&query), Host::view(&keys)).with_values(Host::view(&values));
//! let pooled = backend.target_attention(&op, &batch, inputs)?;
//! let out = pooled[0] + target[0]; // W_o = 1
//! assert_eq!(out, 6.5);
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # HSTU: candidates over cached behaviours
//!
//! Candidates attend to the cached keys and values of behaviours with SiLU weights, divided by the length that the model was trained with, or
//! by that of each user's own history ([`SiluDivisor::HistoryLength`](crate::SiluDivisor::HistoryLength));
//! relative positions and times come as a bias of behaviours (it is the same for all of a user's candidates, which share a time).
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
//! let (query, keys, values, bias) = ([1.0_f32], [2.0, 0.0], [8.0, 5.0], [0.0, 0.0]);
//! let op = TargetAttention::new(1).with_weighting(Weighting::silu(4.0));
//! let inputs = TargetAttentionInputs::new(Host::view(&query), Host::view(&keys))
//!     .with_values(Host::view(&values))
//!     .with_bias(Host::view(&bias));
//! let out = backend.target_attention(&op, &batch, inputs)?;
//! let silu = 2.0 / (1.0 + (-2.0_f32).exp());
//! assert!((out[0] - silu / 4.0 * 8.0).abs() < 1e-5); // SiLU(0) = 0
//! # Ok::<(), longseq::Error>(())
//! ```
//!
//! # STCA
//!
//! Each layer is softmax attention of the candidates' rows over the history, and its result takes part in the next layer's query. For few
//! candidates of a user, `(q·W_Q)·W_Kᵀ` as a query with the history itself as keys and values, and `W_V` after the pooling, save the
//! projections of the history: one row serves all heads (`with_heads(H, 1)`).
//!
//! ```
//! use longseq::prelude::*;
//! use longseq::*;
//!
//! let backend = Cpu::new();
//! let batch = backend.batch(&Jagged::from_lengths(&[2])?, &Jagged::from_lengths(&[1])?)?;
//! let (w_k, w_v, history) = (0.5_f32, 2.0, [1.0, 3.0]);
//! let mut query = [0.0_f32, 0.0]; // two heads
//! let op = TargetAttention::new(1).with_heads(2, 1);
//! for (layer, expected) in [4.0, 5.9].into_iter().enumerate() {
//!     let folded = query.map(|q| q * w_k);
//!     let inputs = TargetAttentionInputs::new(Host::view(&folded), Host::view(&history));
//!     let pooled = backend.target_attention(&op, &batch, inputs)?;
//!     let out = pooled[0] * w_v;
//!     assert!((out - expected).abs() < 0.1, "layer {layer}: {out}");
//!     query = [out; 2];
//! }
//! # Ok::<(), longseq::Error>(())
//! ```
