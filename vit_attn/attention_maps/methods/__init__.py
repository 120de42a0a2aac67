"""Attribution methods, which compute maps over tokens from recorded attention, and measures of heads."""
