"""Chinese: normalising, pinyin, tone sandhi."""
