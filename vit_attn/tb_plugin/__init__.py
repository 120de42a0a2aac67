"""The Attention tab of TensorBoard: what is written, the server's side and the page. No torch in here."""
