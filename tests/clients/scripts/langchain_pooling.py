"""langchain-openai: vectors of documents and of a query, and shorter ones. Texts are sent as texts, not as ids."""

from langchain_openai import OpenAIEmbeddings
from talk import read_texts, tell

task = read_texts()
shared = {"base_url": task.url + "/v1", "api_key": "none", "model": task.model, "check_embedding_ctx_length": False}
model = OpenAIEmbeddings(**shared)
short = OpenAIEmbeddings(**shared, dimensions=task.dimensions)
tell(
    vectors=model.embed_documents(task.texts),
    one_vector=[model.embed_query(task.texts[0])],
    short_vectors=short.embed_documents(task.texts),
)
