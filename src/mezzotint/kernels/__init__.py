"""Operations by meaning, with their implementations beside them."""
