"""Attribution methods: from recorded attention to maps over tokens, and measures of heads."""
