"""Uploads to the hub, by huggingface_hub."""

from pathlib import Path

from fqgan_jax.hub.address import HubAddress, explained


def upload(folder: Path, address: HubAddress, *, private: bool) -> str:
    """Uploads the files of a folder in one commit; the repository is made if there is none yet.

    Args:
      folder: whose files take the places of those of the same names.
      address: the repository, and the branch in it.
      private: whether a repository that is made is.

    Returns:
      The address of the commit's page.

    Raises:
      UserError: no right to write there, or the hub cannot be asked.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    with explained(address, task="upload"):
        hub.create_repo(address.repository, private=private, exist_ok=True)
        if address.revision != "main":
            hub.create_branch(address.repository, branch=address.revision, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            revision=address.revision,
            commit_message="Upload a model of fqgan_jax",
        )
    return str(commit.commit_url)
