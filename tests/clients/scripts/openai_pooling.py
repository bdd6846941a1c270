"""openai: vectors in the client's own format (base64), as numbers, of ids, and shorter ones."""

from openai import OpenAI
from talk import read_texts, tell

task = read_texts()
with OpenAI(base_url=task.url + "/v1", api_key="none", max_retries=0) as client:
    create = client.embeddings.create
    packed = create(model=task.model, input=task.texts)
    plain = create(model=task.model, input=task.texts, encoding_format="float")
    short = create(model=task.model, input=task.texts, dimensions=task.dimensions)
    one = create(model=task.model, input=task.texts[0])
tell(
    vectors=[entry.embedding for entry in packed.data],
    plain_vectors=[entry.embedding for entry in plain.data],
    short_vectors=[entry.embedding for entry in short.data],
    one_vector=[entry.embedding for entry in one.data],
    num_tokens=packed.usage.prompt_tokens,
)
