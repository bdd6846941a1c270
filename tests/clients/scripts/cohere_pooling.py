"""cohere: documents ranked by both of its clients, over /v1/rerank and /v2/rerank."""

import cohere
from talk import read_texts, tell

task = read_texts()
asked = {"model": task.model, "query": task.query, "documents": task.texts}
new = cohere.ClientV2(api_key="none", base_url=task.url)
old = cohere.Client(api_key="none", base_url=task.url)
whole = new.rerank(**asked)
some = new.rerank(**asked, top_n=2, max_tokens_per_doc=3)
before = old.rerank(**asked, return_documents=True)
tell(
    ranks=[[result.index, result.relevance_score] for result in whole.results],
    ranks_of_two_cut=[[result.index, result.relevance_score] for result in some.results],
    ranks_over_v1=[[result.index, result.relevance_score] for result in before.results],
    documents=[result.document.text for result in before.results],
)
